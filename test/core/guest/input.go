// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
)

var inputTests = []test{
	{"an unprivileged caller is refused everything", unprivileged},
	{"a region without a heartbeat module is refused", noHeartbeat},
	{"a command without its attributes is told which one is missing", bareCommands},
	{"random attributes are refused or obeyed, and break nothing", randomAttributes},
}

var commands = []uapi.Cmd{
	uapi.CmdNodeAdd, uapi.CmdLeave, uapi.CmdFence, uapi.CmdRegionAdd, uapi.CmdRegionDel, uapi.CmdBind, uapi.CmdFenced,
}

// proper are the attributes that make a command whole, in their order.
var proper = map[uapi.Cmd][]uapi.Attr{
	uapi.CmdNodeAdd: {
		uapi.AttrCluster, uapi.AttrNode, uapi.AttrMethod, uapi.AttrTimeoutMS, uapi.AttrParams, uapi.AttrMethod,
		uapi.AttrTimeoutMS, uapi.AttrParams,
	},
	uapi.CmdLeave: {uapi.AttrCluster},
	uapi.CmdFence: {uapi.AttrCluster, uapi.AttrNode, uapi.AttrReason, uapi.AttrIncarnation},
	uapi.CmdRegionAdd: {
		uapi.AttrCluster, uapi.AttrRegion, uapi.AttrFD, uapi.AttrStartBlock, uapi.AttrBlockBytes, uapi.AttrBlocks,
		uapi.AttrNodes, uapi.AttrMissed, uapi.AttrPeriodMS, uapi.AttrGateMS, uapi.AttrFenceDelayMS,
	},
	uapi.CmdRegionDel: {uapi.AttrRegion},
	uapi.CmdBind:      {uapi.AttrMethod},
	uapi.CmdFenced: {
		uapi.AttrCluster, uapi.AttrNode, uapi.AttrIncarnation, uapi.AttrRequest, uapi.AttrAttempt, uapi.AttrErrno, uapi.AttrErrmsg,
	},
}

var dumps = []uapi.Cmd{
	uapi.CmdNodeGet, uapi.CmdMethodGet, uapi.CmdRegionGet, uapi.CmdRequestGet,
}

// unprivileged runs trespass as nobody.
func unprivileged(*suite) error {
	cmd := exec.Command("/proc/self/exe", "stranger")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func trespass() error {
	r, err := dialRaw()
	if err != nil {
		return err
	}
	for _, cmd := range slices.Concat(commands, dumps, []uapi.Cmd{uapi.CmdMemalloc}) {
		flags := netlink.Acknowledge
		if slices.Contains(dumps, cmd) {
			flags = netlink.Dump
		}
		if err := expect(r.send(cmd, flags, nil), syscall.EPERM); err != nil {
			return fmt.Errorf("%v: %w", cmd, err)
		}
	}
	if err := r.conn.JoinGroup(r.family.Groups[0].ID); err == nil {
		return errors.New("the events are heard")
	}
	return nil
}

// A raw speaks to the family without rules.
type raw struct {
	conn   *genetlink.Conn
	family genetlink.Family
}

func dialRaw() (*raw, error) {
	conn, err := genetlink.Dial(&netlink.Config{Strict: true})
	if err != nil {
		return nil, err
	}
	family, err := conn.GetFamily(uapi.GenlName)
	return &raw{conn, family}, err
}

func (r *raw) send(cmd uapi.Cmd, flags netlink.HeaderFlags, attrs []byte) error {
	m := genetlink.Message{Header: genetlink.Header{Command: uint8(cmd), Version: uapi.GenlVersion}, Data: attrs}
	_, err := r.conn.Execute(m, r.family.ID, netlink.Request|flags)
	return err
}

func noHeartbeat(s *suite) error {
	if err := s.Join(ctx, cluster("c", steps("core-ok")...)); err != nil {
		return err
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(
		expect(s.RegionAdd(ctx, kernel.Region{Cluster: "c", UUID: "R", BlockBytes: 512, Blocks: 2, Nodes: 1, Rules: kernel.Rules{Missed: 5, PeriodMS: 2000}}, f), kernel.ErrNoHeartbeat),
		s.Leave(ctx, "c"),
	)
}

func bareCommands(*suite) error {
	r, err := dialRaw()
	if err != nil {
		return err
	}
	defer r.conn.Close()
	for _, cmd := range commands {
		err := r.send(cmd, netlink.Acknowledge, nil)
		refusal, ok := errors.AsType[*netlink.OpError](err)
		if !ok || !strings.Contains(refusal.Message, "is missing") {
			return fmt.Errorf("%v: %w", cmd, orNone(err))
		}
	}
	return nil
}

// soups is how many messages of random attributes are sent.
const soups = 5000

func randomAttributes(s *suite) error {
	if err := s.Join(ctx, cluster("c", steps("manual", "core-ok")...)); err != nil {
		return err
	}
	r, err := dialRaw()
	if err != nil {
		return err
	}
	defer r.conn.Close()
	random := rand.New(rand.NewPCG(1, 2)) // the same each time
	obeyed := 0
	for range soups {
		cmd := commands[random.IntN(len(commands))]
		err := r.send(cmd, netlink.Acknowledge, soup(cmd, random))
		if _, refused := errors.AsType[*netlink.OpError](err); err != nil && !refused {
			return err
		}
		if err == nil {
			obeyed++
		}
	}
	fmt.Printf("# %d of %d messages were obeyed\n", obeyed, soups)
	if obeyed == 0 {
		return errors.New("no soup was a meal: the test tests nothing")
	}
	_, err = s.Nodes(ctx)
	return err
}

// soup is a command's attributes, some left out, some strange ones in between, and now and then a
// flipped bit.
func soup(cmd uapi.Cmd, random *rand.Rand) []byte {
	ae := netlink.NewAttributeEncoder()
	for _, a := range proper[cmd] {
		if random.IntN(40) > 0 {
			ingredient(ae, a, random)
		}
		if random.IntN(40) == 0 {
			ingredient(ae, uapi.Attr(random.IntN(int(uapi.AttrPad)+2)), random)
		}
	}
	b, err := ae.Encode()
	if err != nil {
		return nil
	}
	if len(b) > 0 && random.IntN(20) == 0 {
		b[random.IntN(len(b))] ^= byte(1 << random.IntN(8))
	}
	return b
}

func ingredient(ae *netlink.AttributeEncoder, a uapi.Attr, random *rand.Rand) {
	texts := []string{"", "c", "c", "d", "manual", "core-ok", "core-ok", "core-fail", "watchdog", "x\x00y", strings.Repeat("x", 300)}
	numbers := []uint64{0, 1, 1, 1, 2, 100, 100, 254, 255, 512, 1 << 63}
	text, number := texts[random.IntN(len(texts))], numbers[random.IntN(len(numbers))]
	form := a.Type()
	if random.IntN(30) == 0 {
		form = uapi.TypeBinary
	}
	switch form {
	case uapi.TypeString:
		ae.String(uint16(a), text)
	case uapi.TypeU32:
		ae.Uint32(uint16(a), uint32(number))
	case uapi.TypeU64:
		ae.Uint64(uint16(a), number)
	default:
		ae.Bytes(uint16(a), make([]byte, random.IntN(70)))
	}
}
