// What the application says and understands: see house.go, programme.go and seats.go.

export interface Text { en: string; zh: string }
export interface Screening {
  id: string; movie: string; hall: string; rows: number; columns: number; startsAt: number; price: number; membersOnly?: boolean; rev: number; free: number;
}
export interface Movie { id: string; minutes: number; title: Text; tagline: Text; screenings: Screening[] }
export interface Seat { seat: string; state: 'free' | 'held' | 'paying' | 'sold'; user?: string; until?: number; rev: number }
export interface Change { screening: string; rev: number; free: number; seats: Seat[]; now: number }
export interface HallView { screening: Screening; seats: Seat[]; now: number }
export interface Payment { id: string; screening: string; seats: string[]; amount: number; card: string; status: string; reason?: string; at: number }
export interface Ticket { code: string; seat: string; screening: Screening }
export interface Notice { id: string; at: number; kind: 'paid' | 'declined' | 'hold_over'; data: { screening: string; seats: string[]; amount?: number; payment?: string; reason?: string } }
export interface Account { tickets: Ticket[]; payments: Payment[]; notices: Notice[] }
export interface Line { text: string; at: number }
export interface Act { at: number; kind: string; what?: string; by: string; micros: number; outcome: string }
export interface Welcome { session: string; user: { id: string; name: string }; now: number; hold: number; maxSeats: number }
