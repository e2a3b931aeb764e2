// The plan of a hall. Every seat is a button; the arrow keys move between them.

import { h } from './dom';
import type { Screening, Seat } from './house';
import { live } from './live';
import { hallName, left, words } from './words';

export type Look = 'free' | 'mine' | 'held' | 'paying' | 'mine-paying' | 'sold' | 'ticket';

export function look(one: Seat): Look {
  const mine = one.user === live.me.id;
  switch (one.state) {
    case 'free': return 'free';
    case 'held': return mine ? 'mine' : 'held';
    case 'paying': return mine ? 'mine-paying' : 'paying';
    default: return mine ? 'ticket' : 'sold';
  }
}

export class SeatMap {
  readonly element: HTMLElement;
  readonly seats = new Map<string, Seat>();
  #buttons = new Map<string, HTMLButtonElement>();
  #screening: Screening;

  constructor(screening: Screening, pick: (seat: Seat) => void) {
    this.#screening = screening;
    const rows = Array.from({ length: screening.rows }, (_, row) => {
      const letter = String.fromCharCode(65 + row);
      const seats = Array.from({ length: screening.columns }, (_, column) => {
        const name = `${letter}${column + 1}`;
        const button = h('button', {
          type: 'button', class: 'seat', id: `seat-${name}`, 'data-seat': name, tabindex: row + column === 0 ? 0 : -1,
          onclick: () => { const one = this.seats.get(name); if (one) pick(one); },
          onfocus: () => this.#rove(name),
        }, h('span', {}, column + 1));
        this.#buttons.set(name, button);
        return button;
      });
      const half = screening.columns / 2;
      return h('div', { class: 'row' }, h('span', { class: 'letter', 'aria-hidden': 'true' }, letter), ...seats.slice(0, half), h('i', {}), ...seats.slice(half));
    });
    this.element = h('div', {
      class: 'plan', role: 'group', 'aria-label': words.seatsOf(hallName(screening.hall)), style: `--half: ${screening.columns / 2}`,
      onkeydown: (event: KeyboardEvent) => this.#move(event),
    }, ...rows);
  }

  /** Takes over what is newer than what is shown; returns the seats that have changed. */
  update(seats: Seat[], flash = true): Seat[] {
    const changed = seats.filter((one) => one.rev >= (this.seats.get(one.seat)?.rev ?? -1) && !same(one, this.seats.get(one.seat)));
    for (const one of changed) {
      const known = this.seats.has(one.seat);
      this.seats.set(one.seat, one);
      this.#paint(one, flash && known);
    }
    return changed;
  }

  #paint(one: Seat, flash: boolean): void {
    const button = this.#buttons.get(one.seat);
    if (!button) return;
    const as = look(one);
    button.dataset.look = as;
    button.setAttribute('aria-label', words.seatLabel(one.seat, words.seatState[as]!));
    button.setAttribute('aria-pressed', String(as === 'mine' || as === 'mine-paying'));
    button.setAttribute('aria-disabled', String(as !== 'free' && as !== 'mine'));
    const counting = as === 'mine' || as === 'held';
    button.style.cssText = counting ? `--hold: ${live.hold}ms; --gone: ${Math.min(0, (one.until ?? 0) - live.now() - live.hold)}ms` : '';
    if (flash) {
      button.classList.remove('flash');
      void button.offsetWidth; // start the animation again
      button.classList.add('flash');
    }
  }

  /** Writes the time that is left into the tips of held seats. */
  tick(): void {
    for (const [name, button] of this.#buttons) {
      const one = this.seats.get(name);
      button.title = one?.state === 'held' ? `${name} · ${left((one.until ?? 0) - live.now())}` : name;
    }
  }

  #rove(name: string): void {
    for (const [other, button] of this.#buttons) button.tabIndex = other === name ? 0 : -1;
  }

  #move(event: KeyboardEvent): void {
    const name = (event.target as HTMLElement).dataset.seat;
    if (!name || event.altKey || event.ctrlKey || event.metaKey) return;
    const row = name.charCodeAt(0) - 65;
    const column = Number(name.slice(1)) - 1;
    const to: Record<string, [number, number]> = {
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      Home: [row, 0], End: [row, this.#screening.columns - 1],
    };
    const target = to[event.key];
    if (!target) return;
    event.preventDefault();
    this.#buttons.get(`${String.fromCharCode(65 + target[0])}${target[1] + 1}`)?.focus();
  }
}

function same(a: Seat, b: Seat | undefined): boolean {
  return b !== undefined && a.state === b.state && a.user === b.user && a.until === b.until;
}
