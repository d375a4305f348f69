// SPDX-License-Identifier: GPL-2.0-only

package wire

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"time"
)

// A Fault decides what becomes of a packet. It is called for packets of both directions, at the
// same time too; a packet that it does nothing with is lost.
type Fault func(Packet)

// Cut loses everything.
func Cut(Packet) {}

// Mute loses all answers: the device hears, and acts, and nobody learns of it.
func Mute(p Packet) {
	if !p.Answer {
		p.Pass()
	}
}

// Lossy returns a Fault that loses one packet in five. Which ones seems random, so that no protocol
// falls into step with it, but is the same every time.
func Lossy() Fault {
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(1, 5))
	return func(p Packet) {
		mu.Lock()
		lost := dice.IntN(5) == 0
		mu.Unlock()
		if !lost {
			p.Pass()
		}
	}
}

// Double delivers every answer twice.
func Double(p Packet) {
	if p.Answer {
		p.Pass()
	}
	p.Pass()
}

// Shuffle delivers every second answer late, behind the one that follows it.
func Shuffle(p Packet) {
	if p.Answer && p.N%2 == 0 {
		time.AfterFunc(30*time.Millisecond, p.Pass)
		return
	}
	p.Pass()
}

// Late delivers every answer an eighth of a second late.
func Late(p Packet) {
	const late = 125 * time.Millisecond
	switch {
	case !p.Answer:
		p.Pass()
	case p.forge == nil: // what comes behind it on the connection has to wait, too
		time.Sleep(late)
		p.Pass()
	default:
		time.AfterFunc(late, p.Pass)
	}
}

// Noise puts packets that are no answers before every answer: nothing at all, rubbish, and the
// answer cut short in up to 128 places. More would fill the socket's buffer, and the answer itself
// would be lost.
func Noise(p Packet) {
	if p.Answer {
		p.Deliver(nil)
		p.Deliver([]byte("\x06\x00\xff\x07garbage"))
		for i := 0; i < len(p.Data); i += 1 + len(p.Data)/128 {
			p.Deliver(p.Data[:i])
		}
	}
	p.Pass()
}

// Truncate cuts every answer in half.
func Truncate(p Packet) {
	if p.Answer {
		p.Deliver(p.Data[:len(p.Data)/2])
		return
	}
	p.Pass()
}

// Corrupt returns a Fault that changes the last byte of the first answer, and of one in four after it.
// Which ones seems random, as with Lossy: every fourth would be the same message of a set-up again and
// again, and no longer damage but what the device always says. For the same reason the answer that comes
// after a damaged one, and is another, is whole: where nothing is signed, two that are damaged alike are
// two that agree. One that is the same again may be damaged again.
func Corrupt() Fault {
	var mu sync.Mutex
	var damaged, spared []byte // the last one that was, as it was before, and the one after it
	dice := rand.New(rand.NewPCG(1, 4))
	return func(p Packet) {
		if !p.Answer {
			p.Pass()
			return
		}
		mu.Lock()
		hit := p.N == 0 || dice.IntN(4) == 0
		switch {
		case damaged != nil && !bytes.Equal(damaged, p.Data):
			hit, damaged, spared = false, nil, bytes.Clone(p.Data)
		case spared != nil && bytes.Equal(spared, p.Data):
			hit = false
		case hit:
			damaged, spared = bytes.Clone(p.Data), nil
		}
		mu.Unlock()
		if !hit {
			p.Pass()
			return
		}
		b := bytes.Clone(p.Data)
		b[len(b)-1] ^= 0x01
		p.Deliver(b)
	}
}

// Forgery has a stranger answer first, in the device's words.
func Forgery(p Packet) {
	if p.Answer {
		p.Forge(p.Data)
	}
	p.Pass()
}

// A Tape records answers and plays them again, as somebody would who wants an old answer taken for
// a new one. The zero value is ready to use.
type Tape struct {
	mu      sync.Mutex
	answers [][]byte
}

// Record is a Fault that changes nothing.
func (t *Tape) Record(p Packet) {
	if p.Answer {
		t.mu.Lock()
		t.answers = append(t.answers, bytes.Clone(p.Data))
		t.mu.Unlock()
	}
	p.Pass()
}

// Play is a Fault that delivers all that was recorded before each answer.
func (t *Tape) Play(p Packet) {
	if p.Answer {
		t.mu.Lock()
		for _, old := range t.answers {
			p.Deliver(old)
		}
		t.mu.Unlock()
	}
	p.Pass()
}

// Forge is a Fault that has a stranger answer first with all that was recorded.
func (t *Tape) Forge(p Packet) {
	if p.Answer {
		t.mu.Lock()
		for _, old := range t.answers {
			p.Forge(old)
		}
		t.mu.Unlock()
	}
	p.Pass()
}
