// Short messages, read out and gone after a while.

import { h } from './dom';
import { words } from './words';

export const toasts = h('div', { class: 'toasts', role: 'status', 'aria-live': 'polite' });

export function toast(text: string, kind: 'good' | 'bad' | 'warn' | 'quiet' = 'quiet'): void {
  const item = h('p', { class: `toast ${kind}` }, text);
  toasts.append(item);
  while (toasts.children.length > 4) toasts.firstElementChild!.remove();
  setTimeout(() => item.remove(), kind === 'quiet' ? 3500 : 8000);
}

/** Says why something was refused. */
export function explain(error: unknown): void {
  const { code, message } = error as { code?: number; message?: string };
  toast(words.errors[code ?? 0] ?? words.failed(message ?? String(error)), 'bad');
}
