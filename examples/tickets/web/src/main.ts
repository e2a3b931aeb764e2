// The page's frame: who is here, whether the connection is, and which view is shown.

import './style.css';
import { account, sentence } from './account';
import { backstage } from './backstage';
import { fill, h, hue, initials, moment, svg } from './dom';
import { live } from './live';
import { logo, poster } from './posters';
import { programme } from './programme';
import { screening } from './screening';
import { toast, toasts } from './toast';
import { language, speak, words } from './words';

const main = h('main', { id: 'main', tabindex: -1 });
const status = h('span', { class: 'pill' });
const user = h('a', { class: 'user', href: '#/tickets' });
const banner = h('div', { class: 'banner', role: 'status', 'aria-live': 'polite' });
const header = h('header', { class: 'top' },
  h('a', { class: 'brand', href: '#/' }, svg(logo, 'logo'), h('b', {}, 'Nautilus'), h('small', {}, words.tagline)),
  h('nav', {}, status,
    h('button', { type: 'button', class: 'ghost', lang: language === 'zh' ? 'en' : 'zh-CN', onclick: () => { speak(language === 'zh' ? 'en' : 'zh'); location.reload(); } }, language === 'zh' ? 'English' : '中文'),
    user));

let close = () => {};

function show(): void {
  close();
  close = () => {};
  main.className = '';
  main.replaceChildren();
  if (live.state === 'signed-out' || live.state === 'connecting') {
    user.hidden = true;
    if (live.state === 'signed-out') doors();
    else main.append(moment());
    return;
  }
  const [, page, id] = location.hash.split('/');
  const view = page === 's' && id ? screening(main, decodeURIComponent(id)) : page === 'tickets' ? account(main) : programme(main);
  close = view;
}

// The doors: where somebody without a session says who they are.
function doors(said = ''): void {
  const animals = ['Otter', 'Heron', 'Lynx', 'Finch', 'Badger', 'Ibis', 'Marten', 'Wren', 'Seal', 'Hare'];
  const zhAnimals = ['水獭', '苍鹭', '猞猁', '燕雀', '獾', '朱鹮', '貂', '鹪鹩', '海豹', '野兔'];
  const proposal = (language === 'zh' ? zhAnimals : animals)[Math.floor(Math.random() * animals.length)]!;
  const name = h('input', { id: 'name', maxlength: 30, required: true, autocomplete: 'nickname', value: proposal });
  fill(main, h('div', { class: 'doors' },
    svg(poster('spiral'), 'poster'),
    h('form', { onsubmit: (event: Event) => { event.preventDefault(); live.start(name.value); } },
      h('h1', {}, words.hello),
      h('p', {}, said || words.helloMore),
      h('label', { for: 'name' }, words.name), name,
      h('button', { class: 'pay' }, words.comeIn))));
  name.select();
}

function drawState(): void {
  const { state } = live;
  status.className = `pill ${state}`;
  status.hidden = state === 'signed-out';
  status.textContent = state === 'online' ? words.online : state === 'lost' ? words.offline : words.connecting;
  status.title = state === 'online' ? live.transport : '';
  document.body.dataset.state = state;
  document.body.dataset.transport = state === 'online' ? live.transport : '';
  user.hidden = !live.me.id;
  if (state === 'lost') {
    banner.className = 'banner lost';
    banner.textContent = words.lost;
  }
}

function drawUser(): void {
  const n = live.account.tickets.length;
  user.style.setProperty('--hue', String(hue(live.me.id)));
  fill(user, h('span', { class: 'face', 'aria-hidden': 'true' }, initials(live.me.name || '?')), h('span', { class: 'name' }, live.me.name), h('span', { class: 'count' }, `${words.account}${n ? ` ${n}` : ''}`));
}

let was = live.state;
live.onState.on((state) => {
  drawState();
  drawUser();
  // A lost connection leaves everything where it is; entering and leaving does not.
  if (was === 'signed-out' || was === 'connecting' || state === 'signed-out') show();
  was = state;
});
live.onRefused.on((code) => doors(words.errors[code]));

// Back again: say how long it took, and what was missed. A screening on show tells
// what has changed there as soon as it knows.
let hideBanner = 0;
live.onBack.on((away) => {
  const first = words.back(Math.max(1, Math.round(away / 1000)));
  banner.className = 'banner back';
  banner.textContent = first;
  document.addEventListener('missed', (event) => {
    const { seats, lines } = (event as CustomEvent<{ seats: number; lines: number }>).detail;
    const parts = [first, seats > 0 && words.missedSeats(seats), lines > 0 && words.missedLines(lines), !seats && !lines && words.missedNothing];
    banner.textContent = parts.filter(Boolean).join(' ');
  }, { once: true });
  clearTimeout(hideBanner);
  hideBanner = window.setTimeout(() => { banner.className = 'banner'; banner.textContent = ''; }, 9000);
});

live.onNotice.on((notice) => toast(sentence(notice), notice.kind === 'paid' ? 'good' : notice.kind === 'declined' ? 'bad' : 'warn'));

// What somebody was told while they were not connected, they are told now.
let newest: number | undefined;
live.onAccount.on(() => {
  const { notices } = live.account;
  drawUser();
  if (newest !== undefined) {
    for (const n of notices.filter((n) => n.at > newest! && !told.has(n.id)).reverse()) toast(sentence(n), n.kind === 'paid' ? 'good' : 'warn');
  }
  newest = notices[0]?.at ?? newest ?? 0;
});
const told = new Set<string>();
live.onNotice.on((notice) => { told.add(notice.id); });

window.addEventListener('hashchange', () => { show(); main.focus({ preventScroll: true }); scrollTo(0, 0); });
document.body.append(h('div', { class: 'head' }, header, banner), main, backstage(), toasts);
drawState();
if (sessionStorage.session) live.start();
else show();
