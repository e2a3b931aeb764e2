// Package backend holds those who answer events outside this process (a gRPC
// service, an HTTP endpoint, a pool of workers) and what stands before them:
// the Guard, which gives each of them the same deadline, bounds, error texts and
// legal codes; the Balance, which makes one of several; and the Router, which
// knows who answers what.
package backend
