// The connection: who we are, what is asked, what is heard.

import { Centrifuge, type Subscription, type TransportEndpoint } from 'centrifuge';
import type { Account, Movie, Notice, Welcome } from './house';

const at = (path: string) => new URL(path, location.href).href;

/** The ways to the server, best first. ?transport=sse in the page's address leaves only one. */
function transports(): TransportEndpoint[] {
  const all: TransportEndpoint[] = [
    { transport: 'websocket', endpoint: at('connection/websocket').replace(/^http/, 'ws') },
    { transport: 'http_stream', endpoint: at('connection/http_stream') },
    { transport: 'sse', endpoint: at('connection/sse') },
  ];
  const only = new URLSearchParams(location.search).get('transport');
  return all.some((t) => t.transport === only) ? all.filter((t) => t.transport === only) : all;
}

type Listener<T> = (value: T) => void;

/** Something that others may listen to. */
class Signal<T> {
  #listeners = new Set<Listener<T>>();
  on(listener: Listener<T>): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  send(value: T): void {
    for (const listener of [...this.#listeners]) listener(value);
  }
}

export type State = 'signed-out' | 'connecting' | 'online' | 'lost';

class Live {
  state: State = 'signed-out';
  transport = '';
  me: Welcome['user'] = { id: '', name: '' };
  client = ''; // id of this connection
  hold = 120_000;
  lostAt = 0;
  programme: Movie[] = [];
  account: Account = { tickets: [], payments: [], notices: [] };

  readonly onState = new Signal<State>();
  readonly onRefused = new Signal<number>(); // signed out by the server, with a code
  readonly onProgramme = new Signal<void>();
  readonly onAccount = new Signal<void>();
  readonly onNotice = new Signal<Notice>();
  readonly onBack = new Signal<number>(); // online again, after so many milliseconds

  #skew = 0; // the server's clock minus ours
  #connection: Centrifuge;
  #name = '';

  constructor() {
    this.#connection = new Centrifuge(transports(), {
      emulationEndpoint: at('emulation'),
      minReconnectDelay: 300,
      maxReconnectDelay: 3000,
      // A session proves who we are. It lives in the tab, so that two tabs are two people.
      getData: async () => (sessionStorage.session ? { session: sessionStorage.session } : { name: this.#name }),
    });
    const c = this.#connection;
    c.on('connecting', () => this.#become(this.state === 'online' || this.state === 'lost' ? 'lost' : 'connecting'));
    c.on('connected', ({ client, transport, data }) => {
      const welcome = data as Welcome;
      sessionStorage.session = welcome.session;
      this.me = welcome.user;
      this.hold = welcome.hold;
      this.client = client;
      this.transport = transport;
      this.clock(welcome.now);
      const away = this.lostAt ? Date.now() - this.lostAt : 0;
      this.lostAt = 0;
      this.#become('online');
      void this.#loadAccount();
      if (away) this.onBack.send(away);
    });
    c.on('disconnected', ({ code }) => {
      this.#become('signed-out');
      if (code >= 4500) {
        delete sessionStorage.session;
        this.onRefused.send(code);
      }
    });
    // The user's own channel: the server has subscribed us to it.
    c.on('publication', ({ channel, data }) => {
      if (!channel.startsWith('user:')) return;
      this.onNotice.send(data as Notice);
      void this.#loadAccount();
    });
    const programme = c.newSubscription('programme');
    programme.on('subscribed', () => void this.#loadProgramme());
    programme.on('publication', ({ data }) => {
      for (const movie of this.programme) {
        for (const one of movie.screenings) {
          if (one.id === data.screening && data.rev > one.rev) Object.assign(one, { rev: data.rev, free: data.free });
        }
      }
      this.onProgramme.send();
    });
    programme.subscribe();
  }

  /** Connects as somebody new, or as who we were. */
  start(name = ''): void {
    this.#name = name;
    this.#connection.connect();
  }

  async signOut(): Promise<void> {
    await this.call('sign_out', {}).catch(() => {});
    delete sessionStorage.session;
    location.hash = '';
    location.reload();
  }

  /** Asks the application. While there is no connection it fails at once, with code -1: later, what is asked for may not be wanted any more. */
  async call<Out>(method: string, data: unknown): Promise<Out> {
    this.#need();
    return (await this.#connection.rpc(method, data)).data as Out;
  }

  /** A call that only reads: what fails for a moment is asked again. */
  async load<Out>(method: string, data: unknown): Promise<Out> {
    for (;;) {
      try {
        return await this.call<Out>(method, data);
      } catch (error) {
        const { code, temporary } = error as { code: number; temporary?: boolean };
        if (!temporary && code !== 1) throw error; // 1 is the SDK's timeout
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
  }

  /** Publishes into a channel. It fails without a connection, as call does. */
  async publish(channel: Subscription, data: unknown): Promise<void> {
    this.#need();
    await channel.publish(data);
  }

  #need(): void {
    if (this.state !== 'online') throw { code: -1, message: 'not connected' };
  }

  /** A channel, joined when the caller has said what it listens to. It must be left. */
  channel(name: string): Subscription {
    // Without a position of ours, the server sends what it has kept.
    return this.#connection.newSubscription(name, name.startsWith('chat:') ? { since: { offset: 0, epoch: '' } } : {});
  }

  leave(channel: Subscription): void {
    channel.unsubscribe();
    channel.removeAllListeners();
    this.#connection.removeSubscription(channel);
  }

  /** Tells what time it is at the server. */
  clock(now: number): void {
    this.#skew = now - Date.now();
  }

  now(): number {
    return Date.now() + this.#skew;
  }

  async #loadAccount(): Promise<void> {
    this.account = await this.load<Account>('account', {}).catch(() => this.account);
    this.onAccount.send();
  }

  async #loadProgramme(): Promise<void> {
    this.programme = await this.load<Movie[]>('programme', {}).catch(() => this.programme);
    this.onProgramme.send();
  }

  #become(state: State): void {
    if (state === 'lost' && !this.lostAt) this.lostAt = Date.now();
    if (this.state === state) return;
    this.state = state;
    this.onState.send(state);
  }
}

export const live = new Live();
