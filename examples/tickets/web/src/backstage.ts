// A look behind the scenes: what the server has asked the application.

import { h } from './dom';
import type { Act } from './house';
import { live } from './live';
import { words } from './words';

const shown = 60;

export function backstage(): HTMLElement {
  const list = h('ol', { class: 'acts' }, h('li', { class: 'fine none' }, words.waiting));
  const total = h('span', { class: 'total' });
  const channel = live.channel('backstage');
  channel.on('publication', ({ data }) => {
    const { acts, total: n } = data as { acts: Act[] | null; total: number };
    total.textContent = String(n);
    list.querySelector('.none')?.remove();
    for (const act of acts ?? []) list.prepend(line(act));
    while (list.children.length > shown) list.lastElementChild!.remove();
  });
  channel.subscribe();
  return h('details', { class: 'backstage' }, h('summary', {}, h('b', {}, words.backstage), total, h('span', { class: 'fine' }, words.backstageMore)), list);
}

function line(act: Act): HTMLElement {
  const ms = act.micros / 1000;
  const width = Math.min(100, 12 + 26 * Math.log10(1 + act.micros / 50)); // 50 µs and 50 ms both can be seen
  return h('li', { class: act.outcome === 'ok' ? '' : 'refused' },
    h('time', {}, new Date(act.at).toLocaleTimeString('en-GB')),
    h('b', {}, act.kind), h('span', { class: 'what' }, act.what ?? ''),
    h('i', { class: `by ${act.by.toLowerCase()}` }, act.by),
    h('span', { class: 'outcome' }, act.outcome),
    h('span', { class: 'took' }, h('i', { style: `width: ${width}%` }), `${ms < 10 ? ms.toFixed(2) : ms.toFixed(0)} ms`));
}
