// What a user has: tickets, payments, and what they were told.

import { fill, h } from './dom';
import type { Notice, Ticket } from './house';
import { live } from './live';
import { clock, day, hallName, language, money, words } from './words';

export function account(root: HTMLElement): () => void {
  const draw = () => {
    const { tickets, payments, notices } = live.account;
    fill(root,
      h('a', { class: 'back', href: '#/' }, '← ', words.programme),
      h('div', { class: 'intro' }, h('h1', {}, words.tickets), h('button', { type: 'button', class: 'ghost wide', id: 'sign-out', onclick: () => void live.signOut() }, `${words.signOut} · ${live.me.name}`)),
      tickets.length ? h('div', { class: 'stubs' }, ...tickets.map(stub)) : h('p', { class: 'fine none' }, words.noTickets),
      h('div', { class: 'columns' },
        h('section', { class: 'panel' }, h('h2', {}, words.payments), payments.length
          ? h('ul', { class: 'ledger' }, ...payments.map((p) => h('li', {},
              h('span', { class: `status ${p.status}` }, words.status[p.status] ?? p.status),
              h('span', {}, p.seats.join(', '), h('small', {}, `${title(p.screening)} · ${clock(p.at)}${p.reason ? ` · ${words.reason[p.reason] ?? p.reason}` : ''}`)),
              h('b', {}, money(p.amount)))))
          : h('p', { class: 'fine' }, words.noPayments)),
        h('section', { class: 'panel' }, h('h2', {}, words.notices), notices.length
          ? h('ul', { class: 'ledger' }, ...notices.map((n) => h('li', {}, h('time', {}, clock(n.at)), h('span', {}, sentence(n)))))
          : h('p', { class: 'fine' }, words.noNotices))));
  };
  draw();
  const cleanups = [live.onAccount.on(draw), live.onProgramme.on(draw)];
  return () => cleanups.forEach((cleanup) => cleanup());
}

/** A notice in words. */
export function sentence(n: Notice): string {
  const seats = n.data.seats.join(', ');
  return n.kind === 'paid' ? words.paid(seats) : n.kind === 'declined' ? words.declined(seats) : words.holdOver(seats);
}

function title(screening: string): string {
  return live.programme.find((m) => m.screenings.some((s) => s.id === screening))?.title[language] ?? screening;
}

function stub(ticket: Ticket): HTMLElement {
  const { screening: one, seat, code } = ticket;
  const bars = [...code].map((c) => c.charCodeAt(0)).flatMap((n) => [1 + (n & 3), 1 + ((n >> 2) & 1), 1 + ((n >> 3) & 3)]);
  let at = 0;
  const stripes = bars.map((width, i) => { const x = at; at += width + 1; return i % 2 ? '' : `<rect x="${x}" width="${width}" height="30"/>`; }).join('');
  const barcode = h('span', { class: 'barcode', 'aria-hidden': 'true' });
  barcode.innerHTML = `<svg viewBox="0 0 ${at} 30" preserveAspectRatio="none">${stripes}</svg>`; // numbers of ours
  return h('article', { class: 'stub' },
    h('div', {},
      h('p', { class: 'fine' }, words.admit),
      h('h2', {}, live.programme.find((m) => m.id === one.movie)?.title[language] ?? one.movie),
      h('p', {}, `${day(one.startsAt)} ${clock(one.startsAt)} · ${hallName(one.hall)}`)),
    h('div', { class: 'tear' }, h('p', {}, h('small', {}, words.row), h('b', {}, seat.slice(0, 1))), h('p', {}, h('small', {}, words.seat), h('b', {}, seat.slice(1))), barcode, h('small', {}, code)));
}
