// The page's words, in English and Chinese.

const en = {
  tagline: 'a cinema on Volute',
  hello: 'Who is coming?',
  helloMore: 'A name is all it takes. Open this page in a second window under another name, and watch them meet.',
  name: 'Your name',
  comeIn: 'Come in',
  signOut: 'Sign out',
  online: 'live',
  connecting: 'connecting…',
  offline: 'connection lost',
  moment: 'One moment…',
  lost: 'The connection is lost. Trying again… What you see may be out of date.',
  back: (seconds: number) => `Back after ${seconds} s.`,
  missedNothing: 'Nothing was missed.',
  missedSeats: (n: number) => (n === 1 ? 'One seat has changed hands meanwhile.' : `${n} seats have changed hands meanwhile.`),
  missedLines: (n: number) => (n === 1 ? 'One line was said.' : `${n} lines were said.`),
  programme: 'Programme',
  programmeMore: 'Seats are counted live. Choose a screening.',
  minutes: (n: number) => `${n} min`,
  today: 'Today',
  tomorrow: 'Tomorrow',
  free: (n: number) => (n === 0 ? 'sold out' : `${n} free`),
  preview: 'club preview',
  refused: { 440: 'Not on the programme', 441: 'Club preview' } as Record<number, string>,
  sorry: 'Sorry',
  allScreenings: 'All screenings',
  hall: { Grand: 'Grand Hall', Studio: 'Studio', Loft: 'Loft' } as Record<string, string>,
  screen: 'Screen',
  seatsOf: (hall: string) => `Seats of ${hall}. Arrow keys move, Enter takes a seat or gives it back.`,
  legend: { free: 'free', mine: 'yours', held: 'held by others', sold: 'sold', ticket: 'your ticket' },
  seatLabel: (seat: string, state: string) => `${seat}, ${state}`,
  seatState: {
    free: 'free', mine: 'you hold it', held: 'held by somebody', paying: 'being paid', 'mine-paying': 'you are paying', sold: 'sold', ticket: 'your ticket',
  } as Record<string, string>,
  looking: (n: number) => (n === 1 ? 'Only you are looking' : `${n} are looking`),
  you: 'you',
  yourSeats: 'Your seats',
  noSeats: 'Choose seats in the plan. They are kept for you for a while, in front of everybody’s eyes.',
  giveBack: (seat: string) => `Give ${seat} back`,
  card: 'Card',
  cards: { fate: 'Fate decides', good: 'Always works', bad: 'Never works' } as Record<string, string>,
  pay: (amount: string) => `Pay ${amount}`,
  atTheBank: 'Asking the bank…',
  paid: (seats: string) => `Paid. ${seats} ${seats.includes(',') ? 'are' : 'is'} yours – enjoy the film!`,
  declined: (seats: string) => `The bank declined. ${seats} ${seats.includes(',') ? 'are' : 'is'} still held: try again.`,
  holdOver: (seats: string) => `Time is up: ${seats} ${seats.includes(',') ? 'are' : 'is'} free again.`,
  soon: (seat: string) => `20 seconds left for ${seat}.`,
  chat: 'Foyer',
  chatMore: 'Everybody who looks at this screening reads it.',
  sayHere: 'Say something…',
  send: 'Send',
  quiet: 'Nobody has said anything yet.',
  account: 'Tickets',
  tickets: 'Your tickets',
  noTickets: 'No tickets yet. The first one opens the club previews, too.',
  payments: 'Payments',
  noPayments: 'Nothing paid yet.',
  notices: 'What you were told',
  noNotices: 'Nothing yet.',
  status: { pending: 'at the bank', paid: 'paid', declined: 'declined' } as Record<string, string>,
  reason: { insufficient_funds: 'insufficient funds' } as Record<string, string>,
  admit: 'Admit one',
  row: 'Row',
  seat: 'Seat',
  backstage: 'Backstage',
  backstageMore: 'every question that the server asks the application, and how long the answer took',
  waiting: 'Nothing yet: do something.',
  errors: {
    [-1]: 'The connection is lost. Nothing was done: try again when it is back.',
    440: 'This screening has begun, or never was.', 441: 'A club preview: open to everyone who holds a ticket of this house.', 442: 'There is no such seat.',
    443: 'Somebody was faster.', 444: 'You do not hold this seat.', 445: 'Six seats at a time.', 446: 'The hold ran out.',
    447: 'It is being paid, or is paid.', 450: 'An empty line.', 451: 'A line has at most 280 letters.', 4501: 'A name of 1 to 30 letters, please.',
    4502: 'The house does not know you (any more). Who are you?', 4503: 'You have signed out.',
  } as Record<number, string>,
  failed: (what: string) => `That did not work: ${what}`,
};

const zh: typeof en = {
  tagline: '跑在 Volute 上的电影院',
  hello: '怎么称呼您？',
  helloMore: '起个名字就能进场。再开一个窗口，换个名字登录，看看两边如何同步。',
  name: '名字',
  comeIn: '进场',
  signOut: '退出',
  online: '实时',
  connecting: '连接中…',
  offline: '连接已断开',
  moment: '请稍候…',
  lost: '连接断开，正在重连…眼前的内容可能不是最新的。',
  back: (seconds) => `断开 ${seconds} 秒后已恢复。`,
  missedNothing: '期间没有变化。',
  missedSeats: (n) => `期间有 ${n} 个座位易主。`,
  missedLines: (n) => `多了 ${n} 句话。`,
  programme: '排片',
  programmeMore: '余座实时更新，请选择场次。',
  minutes: (n) => `${n} 分钟`,
  today: '今天',
  tomorrow: '明天',
  free: (n) => (n === 0 ? '售罄' : `余 ${n} 座`),
  preview: '会员点映',
  refused: { 440: '没有这一场', 441: '会员点映' },
  sorry: '抱歉',
  allScreenings: '全部场次',
  hall: { Grand: '大厅', Studio: '小剧场', Loft: '阁楼厅' },
  screen: '银幕',
  seatsOf: (hall) => `${hall}座位图。方向键移动，回车键选座或退座。`,
  legend: { free: '可选', mine: '您已选', held: '他人选座中', sold: '已售', ticket: '您的票' },
  seatLabel: (seat, state) => `${seat}，${state}`,
  seatState: { free: '可选', mine: '您已选', held: '他人选座中', paying: '付款中', 'mine-paying': '您正在付款', sold: '已售', ticket: '您的票' },
  looking: (n) => (n === 1 ? '只有您在看' : `${n} 人在看`),
  you: '您',
  yourSeats: '已选座位',
  noSeats: '在座位图上选座。座位会为您保留一会儿，所有人都看得到。',
  giveBack: (seat) => `退掉 ${seat}`,
  card: '银行卡',
  cards: { fate: '听天由命', good: '一定成功', bad: '一定失败' },
  pay: (amount) => `支付 ${amount}`,
  atTheBank: '等待银行答复…',
  paid: (seats) => `支付成功，${seats} 是您的了，祝观影愉快！`,
  declined: (seats) => `银行拒绝了付款。${seats} 仍为您保留，可以再试一次。`,
  holdOver: (seats) => `时间到，${seats} 已释放。`,
  soon: (seat) => `${seat} 还剩 20 秒。`,
  chat: '大堂',
  chatMore: '正在看这一场的人都能看到。',
  sayHere: '说点什么…',
  send: '发送',
  quiet: '还没有人说话。',
  account: '我的票',
  tickets: '我的票',
  noTickets: '还没有票。买到第一张票后，会员点映也会向您开放。',
  payments: '付款记录',
  noPayments: '还没有付款。',
  notices: '通知',
  noNotices: '还没有通知。',
  status: { pending: '等待银行', paid: '已支付', declined: '被拒绝' },
  reason: { insufficient_funds: '余额不足' },
  admit: '入场券',
  row: '排',
  seat: '座',
  backstage: '后台',
  backstageMore: '服务器向应用提出的每个问题，以及应用答复的用时',
  waiting: '还没有动静，操作一下试试。',
  errors: {
    [-1]: '连接已断开，操作没有执行，请等恢复后再试。',
    440: '该场次已开演，或者不存在。', 441: '会员点映：凡在本院买过票的观众均可入场。', 442: '没有这个座位。', 443: '被别人抢先了。', 444: '这个座位不是您选的。',
    445: '一次最多六个座位。', 446: '保留时间已过。', 447: '正在付款，或者已付款。', 450: '不能发送空行。', 451: '一行最多 280 个字。', 4501: '请输入 1 到 30 个字的名字。',
    4502: '本院不认识您（或已不再认识）。怎么称呼您？', 4503: '您已退出。',
  },
  failed: (what) => `操作失败：${what}`,
};

export type Language = 'en' | 'zh';

export let language: Language = localStorage.language === 'en' || localStorage.language === 'zh' ? localStorage.language : navigator.language.startsWith('zh') ? 'zh' : 'en';
export let words = language === 'zh' ? zh : en;

export function speak(l: Language): void {
  language = localStorage.language = l;
  words = l === 'zh' ? zh : en;
  document.documentElement.lang = l === 'zh' ? 'zh-CN' : 'en';
}
speak(language);

const locale = () => (language === 'zh' ? 'zh-CN' : 'en-GB');
export const money = (cents: number) => new Intl.NumberFormat(locale(), { style: 'currency', currency: 'EUR', minimumFractionDigits: cents % 100 ? 2 : 0 }).format(cents / 100);
export const clock = (ms: number) => new Date(ms).toLocaleTimeString(locale(), { hour: '2-digit', minute: '2-digit' });
export function day(ms: number): string {
  const date = new Date(ms).toDateString();
  if (date === new Date().toDateString()) return words.today;
  if (date === new Date(Date.now() + 86_400_000).toDateString()) return words.tomorrow;
  return new Date(ms).toLocaleDateString(locale(), { weekday: 'short', day: 'numeric', month: 'short' });
}
export const left = (ms: number) => {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
};
export const hallName = (name: string) => words.hall[name] ?? name;
