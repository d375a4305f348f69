// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import "context"

// A Plan is what Prepare needs to know.
type Plan struct {
	Name    string // of the daemon, for whoever reads the reserve's ledger
	Budget  Budget
	Reserve Reserve

	// Flag asks the kernel to put the calling thread into PF_MEMALLOC mode; see Enter. Nil is for a daemon
	// that does without, and may wait for memory as any other: it has to rest on something else.
	Flag func() error

	// Open makes what the daemon needs to have: sockets, buffers, secrets. It is called between Enter
	// and Lock, and so in a process that stays. It may be nil.
	Open func() error

	// Overrun is told that the daemon has lost its priority; see RealTime. It may be nil.
	Overrun func()
}

// Prepare takes all steps in the right order: Reserve.Raise, Enter, Open, Lock. It is the first thing
// that main does once it knows the budget, and main runs twice because of Enter. Why this order:
//
//   - The reserve before the flag: from then on the process may take from the reserve, and what it
//     takes has to be in it.
//   - The flag before all else, since exec leaves nothing behind.
//   - The lock after what is opened, which is ordinary code, with pages to read in and memory to ask
//     for that will not be asked for again.
//   - The priority last: until then nothing is urgent, and the heap that is made ready would be
//     long without sleep.
//
// After an error what was raised is given back, and the daemon must not serve. It gives it back itself
// at its end: Reserve.Release. An error of Open is returned as it is.
func Prepare(ctx context.Context, p Plan) error {
	if err := p.Reserve.Raise(ctx, p.Name, p.Budget.KernelKiB); err != nil {
		return err
	}
	if err := p.adopt(); err != nil {
		// What cannot be given back now is given back by whoever settles: the error that counts is err.
		_ = p.Reserve.Release(context.WithoutCancel(ctx))
		return err
	}
	return nil
}

func (p Plan) adopt() error {
	if p.Flag != nil {
		if err := Enter(p.Flag); err != nil {
			return err
		}
	}
	if p.Open != nil {
		if err := p.Open(); err != nil {
			return err
		}
	}
	return Lock(p.Budget, p.Overrun)
}
