package main

import "github.com/volute-io/volute"

// What people are refused for. The page has words for each code in its own
// language; the message is for those who write a page of their own.
var (
	errBadName         = &volute.Disconnect{Code: 4501, Reason: "a name of 1 to 30 letters is needed"}
	errForged          = &volute.Disconnect{Code: 4502, Reason: "that is no session of this house"}
	errSignedOut       = &volute.Disconnect{Code: 4503, Reason: "signed out"}
	errNoScreening     = &volute.Error{Code: 440, Message: "there is no such screening, or it has begun"}
	errMembersOnly     = &volute.Error{Code: 441, Message: "a club preview: open to everyone who holds a ticket of this house"}
	errNoSeat          = &volute.Error{Code: 442, Message: "there is no such seat in this hall"}
	errTaken           = &volute.Error{Code: 443, Message: "somebody else has this seat"}
	errNotYours        = &volute.Error{Code: 444, Message: "you do not hold this seat"}
	errTooMany         = &volute.Error{Code: 445, Message: "six seats at a time"}
	errHoldOver        = &volute.Error{Code: 446, Message: "the hold ran out"}
	errBeingPaid       = &volute.Error{Code: 447, Message: "this seat is being paid for, or is paid"}
	errNothingToPay    = &volute.Error{Code: 448, Message: "name the seats to pay for, each once"}
	errNoCard          = &volute.Error{Code: 449, Message: "card: one of fate, good, bad"}
	errLineEmpty       = &volute.Error{Code: 450, Message: "a line is {\"text\": …} with something in it"}
	errLineTooLong     = &volute.Error{Code: 451, Message: "a line has at most 280 letters"}
	errNotALineForHere = &volute.Error{Code: 452, Message: "only chat channels take lines"}
)
