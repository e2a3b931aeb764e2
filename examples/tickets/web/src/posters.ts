// Posters, drawn instead of photographed: one function per movie.

const frame = (inside: string) => `<svg viewBox="0 0 300 400" preserveAspectRatio="xMidYMid slice">${inside}</svg>`;
const f = (n: number) => n.toFixed(1);
const range = (n: number) => Array.from({ length: n }, (_, i) => i);

// Stairs that wind down from a light, seen from above.
function spiral(): string {
  const steps = range(86).map((i) => {
    const at = (angle: number, radius: number) => `${f(150 + radius * Math.cos(angle))} ${f(206 + radius * Math.sin(angle))}`;
    const [from, to] = [i * 0.27, i * 0.27 + 0.245];
    const [outer, inner] = [262 * Math.exp(-i * 0.0385), 262 * Math.exp(-i * 0.0385) * 0.6];
    return `<path d="M${at(from, outer)} L${at(to, outer * 0.985)} L${at(to, inner * 0.985)} L${at(from, inner)} Z" fill="hsl(${f(16 + i * 0.42)} ${f(54 + i * 0.45)}% ${f(17 + i * 0.72)}%)"/>`;
  });
  return frame(`<rect width="300" height="400" fill="#141d33"/><circle cx="150" cy="206" r="150" fill="#1c2a4b"/>${steps.join('')}
    <circle cx="150" cy="206" r="26" fill="#ffdf8e" opacity=".3"/><circle cx="150" cy="206" r="11" fill="#fff1c9"/>`);
}

// Waves under a low moon, and one small boat.
function tidewater(): string {
  const wave = (y: number, swing: number, length: number, shift: number, colour: string) =>
    `<path d="M-20 ${y} ${range(18).map((i) => `q${length / 2} ${i % 2 ? swing : -swing} ${length} 0`).join(' ')} V420 H-20 Z" transform="translate(${-shift} 0)" fill="${colour}"/>`;
  return frame(`<rect width="300" height="400" fill="#f3d9b8"/><rect width="300" height="210" fill="#f0b98f" opacity=".65"/>
    <circle cx="206" cy="150" r="58" fill="#fbeeda"/><circle cx="206" cy="150" r="84" fill="#fbeeda" opacity=".25"/>
    ${wave(204, 9, 62, 10, '#7fb5a8')}<g transform="translate(84 186) rotate(-3)"><path d="M0 8 h58 l-9 17 h-41 z" fill="#16323a"/><path d="M14 8 v-13 h24 v13 z" fill="#fbeeda"/><path d="M30 -5 v-18" stroke="#16323a" stroke-width="3"/><circle cx="30" cy="-24" r="3.5" fill="#d5533d"/></g>
    ${wave(226, 12, 74, 40, '#4d958e')}${wave(262, 15, 88, 12, '#2c7277')}${wave(306, 17, 104, 60, '#1b535e')}${wave(352, 19, 124, 24, '#123a47')}`);
}

// An envelope on its way around.
function paper(): string {
  const orbits = range(6).map((i) => `<ellipse cx="150" cy="196" rx="${46 + i * 26}" ry="${18 + i * 14}" transform="rotate(-24 150 196)" fill="none" stroke="#f6ead8" stroke-opacity="${f(0.75 - i * 0.1)}" stroke-width="1.4" stroke-dasharray="${i % 2 ? '1 6' : 'none'}"/>`);
  const stars = range(46).map((i) => `<circle cx="${(i * 97) % 300}" cy="${(i * 61 + (i % 5) * 37) % 400}" r="${i % 7 === 0 ? 1.9 : 0.9}" fill="#f6ead8" opacity="${f(0.35 + (i % 4) * 0.18)}"/>`);
  return frame(`<defs><linearGradient id="dusk" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#2b1d4e"/><stop offset=".62" stop-color="#5b2f66"/><stop offset="1" stop-color="#c9585a"/></linearGradient></defs>
    <rect width="300" height="400" fill="url(#dusk)"/>${stars.join('')}${orbits.join('')}
    <circle cx="150" cy="196" r="27" fill="#f2b45f"/><path d="M124 190 q26 12 52 -2" stroke="#d98b3f" stroke-width="4" fill="none"/><path d="M128 208 q22 9 44 0" stroke="#d98b3f" stroke-width="3" fill="none"/>
    <g transform="translate(214 112) rotate(14)"><rect x="-31" y="-21" width="62" height="42" rx="3" fill="#fdf6e9"/><path d="M-31 -19 L0 6 L31 -19" fill="none" stroke="#c9585a" stroke-width="2.6"/><path d="M-31 19 L-9 0 M31 19 L9 0" stroke="#dfcfb4" stroke-width="1.6"/></g>`);
}

// Lit windows between mountains and their reflection.
function north(): string {
  const peaks = (y: number, heights: number[], colour: string) => `<path d="M0 ${y} ${heights.map((height, i) => `L${f((i + 0.5) * (300 / heights.length))} ${y - height} L${f((i + 1) * (300 / heights.length))} ${y - height * 0.3}`).join(' ')} V400 H0 Z" fill="${colour}"/>`;
  const windows = range(11).map((i) => `<rect x="${16 + i * 25}" y="262" width="15" height="13" rx="2.5" fill="${i === 6 ? '#ff8a66' : '#ffd98a'}"/>`);
  const lights = range(26).map((i) => `<path d="M${(i * 71) % 300} ${(i * 43) % 150 + 8} v${6 + (i % 3) * 4}" stroke="#d7ecf5" stroke-opacity="${f(0.25 + (i % 4) * 0.12)}" stroke-width="1.3"/>`);
  return frame(`<defs><linearGradient id="night" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#0d2436"/><stop offset=".7" stop-color="#2e6473"/></linearGradient></defs>
    <rect width="300" height="400" fill="url(#night)"/>${lights.join('')}<path d="M-10 92 Q60 30 130 82 T310 52" stroke="#7fe0bd" stroke-opacity=".38" stroke-width="22" fill="none"/><path d="M-10 122 Q80 66 150 112 T310 92" stroke="#7fe0bd" stroke-opacity=".2" stroke-width="12" fill="none"/>
    ${peaks(250, [88, 132, 74, 118], '#1c4657')}${peaks(268, [40, 66, 92, 48, 70], '#143543')}
    <rect y="252" width="300" height="36" fill="#0b1a24"/><rect y="252" width="300" height="4" fill="#d5533d"/>${windows.join('')}
    <rect y="288" width="300" height="5" fill="#071118"/><rect y="293" width="300" height="107" fill="#0f2a36"/>
    ${range(11).map((i) => `<rect x="${18 + i * 25}" y="${312 + (i % 3) * 7}" width="11" height="46" rx="5" fill="${i === 6 ? '#ff8a66' : '#ffd98a'}" opacity=".17"/>`).join('')}`);
}

// Heights, and a way across them.
function map(): string {
  const ring = (cx: number, cy: number, size: number, wobble: number) => `M${range(73).map((i) => {
    const angle = (i / 72) * 2 * Math.PI;
    const radius = size * (1 + 0.13 * Math.sin(angle * 3 + wobble) + 0.07 * Math.cos(angle * 5 - wobble));
    return `${f(cx + radius * Math.cos(angle))} ${f(cy + radius * 0.9 * Math.sin(angle))}`;
  }).join(' L')} Z`;
  const hills = range(9).map((i) => `<path d="${ring(118, 150, 14 + i * 19, 0.8 + i * 0.07)}"/>`).join('') + range(7).map((i) => `<path d="${ring(214, 300, 10 + i * 15, 2.6 + i * 0.06)}"/>`).join('');
  return frame(`<rect width="300" height="400" fill="#eadfc4"/><g fill="none" stroke="#a8895a" stroke-opacity=".62" stroke-width="1.5">${hills}</g>
    <path d="M40 372 C70 316 132 330 140 268 S206 226 214 300 M140 268 C146 214 96 204 118 150" fill="none" stroke="#c4452f" stroke-width="3.4" stroke-dasharray="1 8" stroke-linecap="round"/>
    <g stroke="#c4452f" stroke-width="4.4" stroke-linecap="round"><path d="M108 140 l20 20 M128 140 l-20 20"/></g><circle cx="214" cy="300" r="6.5" fill="#c4452f"/>
    <g transform="translate(246 94)" fill="none" stroke="#5d4a2c" stroke-width="1.6"><circle r="25"/><path d="M0 -33 L6 0 L0 33 L-6 0 Z" fill="#5d4a2c"/><path d="M-33 0 L0 5 L33 0 L0 -5 Z"/></g>`);
}

const drawn: Record<string, () => string> = { spiral, tidewater, paper, north, map };
export const poster = (movie: string) => (drawn[movie] ?? spiral)();

export const logo = '<svg viewBox="0 0 32 32"><path d="M16 16a3 3 0 0 1 3 3 6 6 0 0 1-9-5 9 9 0 0 1 13-7 12 12 0 0 1 5 15" fill="none" stroke="currentColor" stroke-width="3" stroke-linecap="round"/></svg>';
