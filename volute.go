// Package volute holds the words and contracts of a real-time messaging and
// application server: what a client may want (Event), what the application
// answers (Reply), what travels in a channel (Publication), and the contracts
// between the parts (Backend, Router, Broker, Presence, Bus, Verifier, API).
//
// It has no behaviour of its own and imports the standard library only. A Go
// application imports it together with package app, which serves events, and
// package server, which embeds the whole server.
package volute

// Version is the server version told to clients in the connect reply.
const Version = "0.1.0"
