// The room: one channel for the talk, one that the server fills every second, one RPC.
import { Centrifuge } from 'centrifuge';

const $ = (id) => document.getElementById(id);

// A name for this tab, so that two tabs are two people.
const animals = ['Otter', 'Heron', 'Lynx', 'Newt', 'Finch', 'Badger', 'Ibis', 'Marten', 'Snail', 'Wren'];
const name = sessionStorage.name ??= `${animals[Math.floor(Math.random() * animals.length)]} ${Math.floor(Math.random() * 90 + 10)}`;
const colour = (text) => `hsl(${[...text].reduce((h, c) => (h * 31 + c.codePointAt(0)) % 360, 7)} 55% 50%)`;

const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
const client = new Centrifuge(`${scheme}://${location.host}/connection/websocket`, { data: { name } });

client.on('state', ({ newState }) => {
  $('state').className = `state ${newState === 'connected' ? 'on' : 'off'}`;
  $('state').textContent = newState === 'connected' ? `You are ${name}` : `${newState} …`;
  $('roll').disabled = newState !== 'connected';
});
let me;
client.on('connected', ({ client: id }) => { me = id; });
client.on('disconnected', ({ code, reason }) => { $('state').textContent = `disconnected: ${reason} (${code})`; });

// The talk. Its history comes along when the subscription starts, and again after a lost connection.
const room = client.newSubscription('room:lobby', { since: { offset: 0, epoch: '' } });
const people = new Map();

room.on('publication', ({ data, info }) => show(data.text, info.connInfo?.name ?? info.user, info.client === me));
room.on('subscribed', async () => {
  const { clients } = await room.presence();
  people.clear();
  for (const info of Object.values(clients)) people.set(info.client, info);
  showPeople();
});
room.on('join', ({ info }) => { people.set(info.client, info); showPeople(); });
room.on('leave', ({ info }) => { people.delete(info.client); showPeople(); });

function show(text, from, mine) {
  const list = $('messages');
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const item = document.createElement('li');
  item.className = mine ? 'mine' : '';
  const who = document.createElement('b');
  who.textContent = from;
  who.style.color = `color-mix(in srgb, ${colour(from)}, var(--ink) 30%)`;
  item.append(who, text);
  list.append(item);
  while (list.children.length > 200) list.firstChild.remove();
  if (atEnd || mine) list.scrollTop = list.scrollHeight;
}

function note(text) {
  const item = document.createElement('li');
  item.className = 'note';
  item.textContent = text;
  $('messages').append(item);
  item.scrollIntoView();
}

function showPeople() {
  $('presence').replaceChildren(...[...people.values()].map((info) => {
    const who = info.connInfo?.name ?? info.user;
    const item = document.createElement('li');
    const dot = document.createElement('i');
    dot.style.background = colour(who);
    item.append(dot, info.client === me ? `${who} (you)` : who);
    return item;
  }));
}

$('say').addEventListener('submit', (submit) => {
  submit.preventDefault();
  const text = $('text').value.trim();
  if (!text) return;
  $('text').value = '';
  room.publish({ text }).catch((error) => note(`not sent: ${error.message}`));
});

$('roll').addEventListener('click', async () => {
  try {
    const { data } = await client.rpc('roll', { dice: 2 });
    $('dice').textContent = `${data.dice.map((d) => '⚀⚁⚂⚃⚄⚅'[d - 1]).join(' ')} makes ${data.sum}`;
  } catch (error) {
    $('dice').textContent = `no answer: ${error.message}`;
  }
});

// The pulse: each publication of the server moves the dot one step along the spiral.
const turns = 3;
const steps = 60;
const at = (step) => {
  const angle = (step / steps) * turns * 2 * Math.PI;
  const radius = 6 + (step / steps) * 46;
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
};
const svg = (tag, attributes) => {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};
const path = Array.from({ length: steps * 4 + 1 }, (_, i) => at(i / 4).map((n) => n.toFixed(1)).join(' ')).join(' L');
const dot = svg('circle', { r: 6, cx: 0, cy: 0 });
$('spiral').append(svg('path', { d: `M${path}` }), dot);

const pulse = client.newSubscription('pulse');
pulse.on('publication', ({ data }) => {
  const [x, y] = at(data.second);
  dot.setAttribute('cx', x);
  dot.setAttribute('cy', y);
  $('time').textContent = data.time;
  $('people').textContent = data.people;
  $('count').textContent = data.messages;
});

room.subscribe();
pulse.subscribe();
client.connect();
