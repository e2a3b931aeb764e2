// One screening: its seats, who else is looking, what is said, and paying.

import type { ClientInfo } from 'centrifuge';
import { fill, h, hue, initials, moment } from './dom';
import type { Change, HallView, Line, Movie, Payment, Screening, Seat } from './house';
import { live } from './live';
import { look, SeatMap } from './seatmap';
import { explain, toast } from './toast';
import { clock, day, hallName, language, left, money, words } from './words';

export function screening(root: HTMLElement, id: string): () => void {
  const view = new View(root, id);
  return () => view.close();
}

class View {
  #id: string;
  #root: HTMLElement;
  #map: SeatMap | undefined;
  #screening: Screening | undefined;
  #channel;
  #chat;
  #cleanups: (() => void)[] = [];
  #people = new Map<string, ClientInfo>();
  #before: Map<string, Seat> | undefined; // seats as they were when the connection was lost
  #newLines = 0;
  #warned = new Set<string>();
  #card = 'fate';

  #basket = h('section', { class: 'panel basket', 'aria-labelledby': 'basket-title', tabindex: -1 });
  #faces = h('ul', { class: 'faces' });
  #looking = h('p', { class: 'looking' });
  #lines = h('ol', { class: 'lines', role: 'log', 'aria-label': words.chat, tabindex: 0 });
  #basketShape = '';

  constructor(root: HTMLElement, id: string) {
    this.#id = id;
    this.#root = root;
    this.#channel = live.channel(`screening:${id}`);
    this.#chat = live.channel(`chat:${id}`);

    // Seats. First join, then ask: whatever changes while we ask reaches us, too, and
    // of two states of a seat the one with the higher rev counts.
    this.#channel.on('subscribed', () => void this.#load());
    this.#channel.on('publication', ({ data }) => {
      const change = data as Change;
      live.clock(change.now);
      this.#apply(change.seats);
    });
    this.#channel.on('unsubscribed', ({ code, reason }) => this.#refused(code, reason));

    // People.
    this.#channel.on('join', ({ info }) => { this.#people.set(info.client, info); this.#drawPeople(); });
    this.#channel.on('leave', ({ info }) => { this.#people.delete(info.client); this.#drawPeople(); });

    // Talk.
    this.#chat.on('publication', ({ data, info }) => {
      if (this.#before) this.#newLines++;
      this.#addLine(data as Line, info);
    });

    this.#cleanups.push(
      live.onState.on((state) => {
        root.classList.toggle('stale', state !== 'online');
        if (state === 'lost' && this.#map) {
          this.#before ??= new Map(this.#map.seats);
          this.#newLines = 0;
        }
      }),
      live.onAccount.on(() => this.#drawBasket(true)),
    );
    const ticking = setInterval(() => this.#tick(), 250);
    this.#cleanups.push(() => clearInterval(ticking));
    fill(root, back(), moment());
    this.#channel.subscribe();
    this.#chat.subscribe();
  }

  close(): void {
    for (const cleanup of this.#cleanups) cleanup();
    live.leave(this.#channel);
    live.leave(this.#chat);
    document.title = 'Nautilus';
  }

  async #load(): Promise<void> {
    let view: HallView;
    try {
      view = await live.load<HallView>('seats', { screening: this.#id });
    } catch (error) {
      const { code, message } = error as { code: number; message: string };
      return this.#refused(code, message);
    }
    live.clock(view.now);
    this.#screening = view.screening;
    if (!this.#map) this.#build(view.screening);
    this.#apply(view.seats);
    if (this.#before) {
      const before = this.#before;
      this.#before = undefined;
      const seats = view.seats.filter((one) => look(one) !== look(before.get(one.seat) ?? one)).length;
      document.dispatchEvent(new CustomEvent('missed', { detail: { seats, lines: this.#newLines } }));
    }
    const present = await this.#channel.presence().catch(() => undefined);
    if (present) {
      this.#people = new Map(Object.values(present.clients).map((info) => [info.client, info]));
      this.#drawPeople();
    }
  }

  #apply(seats: Seat[]): void {
    if (!this.#map) return;
    this.#map.update(seats);
    this.#drawBasket();
  }

  #refused(code: number, message: string): void {
    if (this.#map || code < 100) return; // we have left, or are not connected: then it is asked again
    fill(this.#root, back(), h('div', { class: 'panel refused' }, h('h1', {}, words.refused[code] ?? words.sorry), h('p', {}, words.errors[code] ?? words.failed(message))));
  }

  #movie(): Movie | undefined {
    return live.programme.find((movie) => movie.id === this.#screening?.movie);
  }

  #build(one: Screening): void {
    this.#map = new SeatMap(one, (seat) => void this.#pick(seat));
    const key = (name: keyof typeof words.legend, as: string) => h('li', {}, h('i', { class: 'seat', 'data-look': as }), words.legend[name]);
    const text = h('input', { id: 'say', maxlength: 280, autocomplete: 'off', placeholder: words.sayHere, 'aria-label': words.sayHere });
    const say = (event: Event) => {
      event.preventDefault();
      const line = text.value.trim();
      if (!line) return;
      text.value = '';
      live.publish(this.#chat, { text: line }).catch((error) => { text.value ||= line; explain(error); });
    };
    const title = h('h1', {}, this.#movie()?.title[language] ?? '');
    this.#cleanups.push(live.onProgramme.on(() => { title.textContent = this.#movie()?.title[language] ?? ''; }));
    fill(this.#root, back(),
      h('div', { class: 'screening' },
        h('section', { class: 'stage' },
          h('header', {}, title, h('p', {}, `${day(one.startsAt)} ${clock(one.startsAt)} · ${hallName(one.hall)} · ${money(one.price)}`)),
          h('div', { class: 'canvas', 'aria-hidden': 'true' }, h('span', {}, words.screen)),
          this.#map.element,
          h('ul', { class: 'legend' }, key('free', 'free'), key('mine', 'mine'), key('held', 'held'), key('sold', 'sold'), key('ticket', 'ticket'))),
        h('aside', {},
          this.#basket,
          h('section', { class: 'panel people' }, this.#looking, this.#faces),
          h('section', { class: 'panel chat' }, h('h2', {}, words.chat), h('p', { class: 'fine' }, words.chatMore), this.#lines,
            h('form', { class: 'say', onsubmit: say }, text, h('button', {}, words.send))))));
    this.#drawPeople();
    this.#drawLinesEmpty();
  }

  async #pick(seat: Seat): Promise<void> {
    const as = look(seat);
    if (as !== 'free' && as !== 'mine') {
      toast(words.seatLabel(seat.seat, words.seatState[as]!), 'quiet');
      return;
    }
    try {
      const change = await live.call<Change>(as === 'free' ? 'hold' : 'release', { screening: this.#id, seat: seat.seat });
      live.clock(change.now);
      this.#apply(change.seats);
    } catch (error) {
      explain(error);
    }
  }

  #mine(state: Seat['state']): Seat[] {
    return [...(this.#map?.seats.values() ?? [])].filter((one) => one.state === state && one.user === live.me.id)
      .sort((a, b) => a.seat.localeCompare(b.seat, 'en', { numeric: true }));
  }

  #drawBasket(anyway = false): void {
    const held = this.#mine('held');
    const paying = this.#mine('paying');
    const shape = JSON.stringify([held, paying, this.#card]);
    if (shape === this.#basketShape && !anyway) return;
    this.#basketShape = shape;
    const price = this.#screening?.price ?? 0;
    const items = [...held, ...paying].map((one) => h('li', {},
      h('b', {}, one.seat),
      one.state === 'paying' ? h('span', { class: 'fine pulse' }, words.atTheBank) : h('span', { class: 'left', 'data-until': one.until ?? 0 }),
      h('span', { class: 'price' }, money(price)),
      one.state === 'held' && h('button', { type: 'button', class: 'ghost', id: `give-${one.seat}`, 'aria-label': words.giveBack(one.seat), title: words.giveBack(one.seat), onclick: () => void this.#pick(one) }, '×')));
    const cards = held.length > 0 && h('fieldset', { class: 'cards' }, h('legend', {}, words.card),
      ...Object.entries(words.cards).map(([card, label]) => h('label', {},
        h('input', { type: 'radio', name: 'card', id: `card-${card}`, value: card, checked: card === this.#card, onchange: () => { this.#card = card; } }), h('span', {}, label))));
    fill(this.#basket,
      h('h2', { id: 'basket-title' }, words.yourSeats),
      items.length ? h('ul', {}, ...items) : h('p', { class: 'fine' }, words.noSeats),
      cards,
      held.length > 0 && h('button', { type: 'button', class: 'pay', id: 'pay', onclick: () => void this.#pay(held) }, words.pay(money(price * held.length))));
    this.#basket.classList.toggle('open', items.length > 0);
    this.#tick();
  }

  async #pay(seats: Seat[]): Promise<void> {
    try {
      await live.call<Payment>('pay', { screening: this.#id, seats: seats.map((one) => one.seat), card: this.#card });
    } catch (error) {
      explain(error);
    }
  }

  #tick(): void {
    this.#map?.tick();
    const now = live.now();
    let first = 0;
    for (const place of this.#basket.querySelectorAll<HTMLElement>('[data-until]')) {
      const until = Number(place.dataset.until);
      const rest = until - now;
      place.textContent = left(rest);
      place.classList.toggle('hurry', rest < 20_000);
      if (!first || until < first) first = until;
    }
    for (const one of this.#mine('held')) {
      const rest = (one.until ?? 0) - now;
      const key = `${one.seat} ${one.until}`;
      if (rest < 20_000 && rest > 15_000 && !this.#warned.has(key)) {
        this.#warned.add(key);
        toast(words.soon(one.seat), 'warn');
      }
    }
    document.title = first ? `${left(first - now)} · Nautilus` : 'Nautilus';
  }

  #drawPeople(): void {
    const people = new Map<string, ClientInfo>();
    for (const info of this.#people.values()) people.set(info.user, info);
    this.#looking.textContent = words.looking(Math.max(1, people.size));
    const shown = [...people.values()].slice(0, 14).map((info) => {
      const name: string = info.connInfo?.name ?? '?';
      const mine = info.user === live.me.id;
      return h('li', { title: mine ? `${name} (${words.you})` : name, style: `--hue: ${hue(info.user)}`, class: mine ? 'me' : '' },
        h('span', { 'aria-hidden': 'true' }, initials(name)), h('span', { class: 'hidden' }, name));
    });
    if (people.size > shown.length) shown.push(h('li', { class: 'more' }, h('span', {}, `+${people.size - shown.length}`)));
    fill(this.#faces, ...shown);
  }

  #drawLinesEmpty(): void {
    if (!this.#lines.children.length) this.#lines.append(h('li', { class: 'fine none' }, words.quiet));
  }

  #addLine(line: Line, info: ClientInfo | undefined): void {
    this.#lines.querySelector('.none')?.remove();
    const atEnd = this.#lines.scrollHeight - this.#lines.scrollTop - this.#lines.clientHeight < 40;
    const name: string = info?.connInfo?.name ?? '?';
    this.#lines.append(h('li', { class: info?.user === live.me.id ? 'me' : '' },
      h('b', { style: `--hue: ${hue(info?.user ?? '')}` }, name), ' ', h('time', { datetime: new Date(line.at).toISOString() }, clock(line.at)), h('p', {}, line.text)));
    while (this.#lines.children.length > 200) this.#lines.firstElementChild!.remove();
    if (atEnd) this.#lines.scrollTop = this.#lines.scrollHeight;
  }
}

const back = () => h('a', { class: 'back', href: '#/' }, '← ', words.allScreenings);
