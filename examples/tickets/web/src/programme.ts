// What is on: movies, their screenings, and how many seats are left, live.

import { fill, h, moment, svg } from './dom';
import type { Movie, Screening } from './house';
import { live } from './live';
import { poster } from './posters';
import { clock, day, hallName, language, money, words } from './words';

export function programme(root: HTMLElement): () => void {
  const grid = h('div', { class: 'movies' });
  root.append(h('div', { class: 'intro' }, h('h1', {}, words.programme), h('p', {}, words.programmeMore)), grid);
  let shown = '';
  grid.append(moment());
  const draw = () => {
    // Counts change often: then only they are written anew.
    const shape = JSON.stringify(live.programme.map((m) => [m.id, m.screenings.map((s) => s.id)]));
    if (shape !== shown && live.programme.length) {
      shown = shape;
      fill(grid, ...live.programme.filter((m) => m.screenings.length).map(card));
    }
    for (const movie of live.programme) for (const one of movie.screenings) count(grid, one);
  };
  draw();
  return live.onProgramme.on(draw);
}

function card(movie: Movie): HTMLElement {
  return h('article', { class: 'movie' },
    svg(poster(movie.id), 'poster'),
    h('div', { class: 'about' },
      h('h2', {}, movie.title[language]),
      h('p', {}, movie.tagline[language]),
      h('p', { class: 'fine' }, words.minutes(movie.minutes), movie.screenings.some((s) => s.membersOnly) && h('span', { class: 'badge' }, words.preview))),
    h('ul', { class: 'times' }, ...movie.screenings.map((one) => h('li', {},
      h('a', { href: `#/s/${one.id}`, class: 'time', 'data-screening': one.id },
        h('span', { class: 'when' }, `${day(one.startsAt)} `, h('b', {}, clock(one.startsAt))),
        h('span', { class: 'where' }, `${hallName(one.hall)} · ${money(one.price)}`),
        h('span', { class: 'left' }),
        h('span', { class: 'bar', 'aria-hidden': 'true' }, h('i')))))));
}

function count(grid: HTMLElement, one: Screening): void {
  const link = grid.querySelector<HTMLElement>(`[data-screening="${CSS.escape(one.id)}"]`);
  if (!link) return;
  const seats = one.rows * one.columns;
  const text = words.free(one.free);
  const left = link.querySelector('.left')!;
  if (left.textContent && left.textContent !== text) {
    left.classList.remove('moved');
    void (left as HTMLElement).offsetWidth; // start the animation again
    left.classList.add('moved');
  }
  left.textContent = text;
  link.classList.toggle('full', one.free === 0);
  link.querySelector<HTMLElement>('.bar i')!.style.width = `${(100 * (seats - one.free)) / seats}%`;
}
