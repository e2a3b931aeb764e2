// Elements without a framework: h('button', { class: 'pay', onclick: pay }, 'Pay').

import { words } from './words';

type Child = Node | string | number | null | undefined | false;
type Props = Record<string, unknown>;

export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value as EventListener);
    else if (key === 'style') element.style.cssText = String(value);
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

export function append(parent: Node, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replaces what is inside an element. The focus stays on the focused element's id if that is there again, else with the element. */
export function fill(parent: Element, ...children: Child[]): void {
  const focused = document.activeElement;
  const id = focused && parent.contains(focused) ? focused.id : '';
  parent.replaceChildren();
  append(parent, children);
  if (id) (document.getElementById(id) ?? (parent as HTMLElement)).focus({ preventScroll: true });
}

/** Stands where something is about to be. */
export const moment = () => h('p', { class: 'moment', role: 'status' }, words.moment);

/** An icon or picture from SVG source of this program (never of a user). */
export function svg(source: string, className: string): HTMLElement {
  const holder = h('span', { class: className, 'aria-hidden': 'true' });
  holder.innerHTML = source;
  return holder;
}

/** A colour that is a name's own. */
export function hue(text: string): number {
  let n = 7;
  for (const c of text) n = (n * 31 + c.codePointAt(0)!) % 360;
  return n;
}

/** One or two letters for a name. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/);
  const letters = words.length > 1 ? [...words[0]!][0]! + [...words.at(-1)!][0]! : [...words[0]!].slice(0, /^[\x00-\x7f]*$/.test(words[0]!) ? 2 : 1).join('');
  return letters.toUpperCase();
}
