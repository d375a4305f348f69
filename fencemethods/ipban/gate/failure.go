// SPDX-License-Identifier: GPL-2.0-only

package gate

import "github.com/o2fence/o2fence/fencemethods"

// What is missing of a proof. The other side has room for some hundred bytes.
var (
	errNotBanned = &fencemethods.Error{Kind: fencemethods.ErrNotOff, Detail: "not one of its addresses is in the filter", Advice: "see who changes the filter"}
	errPartly    = &fencemethods.Error{Kind: fencemethods.ErrNotOff, Detail: "not all of its addresses are in the filter", Advice: "see who changes the filter"}
	errAltered   = &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: "the filter had to be made anew", Advice: "see who changes it"}
	errNotKept   = &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: "the ban is not on the disk", Advice: "see that disk"}
	errUnread    = &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: "banned, but the target has not read all that came in", Advice: "see the target"}
	errConnected = &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: "banned, but connections are left", Advice: "allow more time"}
	errWorking   = &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: "banned, but the target works for it still", Advice: "see target and disk"}
	errSettling  = &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: "banned, but settle_ms is not over", Advice: "allow more time"}
	errOther     = &fencemethods.Error{Kind: fencemethods.ErrRefused, Detail: "still banned as another node, or by another number", Advice: "see o2fence-ipban status"}
	errHeld      = &fencemethods.Error{Kind: fencemethods.ErrBusy, Advice: "see hold_ms, and set then_delay_ms beyond it"}
)

// failure gives an error a kind, and nil none.
func failure(kind, err error) error {
	if err == nil {
		return nil
	}
	return &fencemethods.Error{Kind: kind, Detail: err.Error(), Advice: "see that machine's log"}
}
