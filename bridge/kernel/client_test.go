// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/uapi"
)

var family = genetlink.Family{ID: 33, Version: uapi.GenlVersion, Name: uapi.GenlName}

// dialFake is a Client whose kernel is fn.
func dialFake(t *testing.T, fn genltest.Func) *Client {
	t.Helper()
	c, err := newClient(genltest.Dial(genltest.ServeFamily(family, fn)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// encode makes attributes of pairs: a type, and a number, a string or bytes.
func encode(t testing.TB, pairs ...any) []byte {
	t.Helper()
	ae := netlink.NewAttributeEncoder()
	for i := 0; i < len(pairs); i += 2 {
		typ := fmt.Sprintf("%d", pairs[i])
		var n uint16
		if _, err := fmt.Sscan(typ, &n); err != nil {
			t.Fatal(err)
		}
		switch v := pairs[i+1].(type) {
		case int:
			ae.Uint32(n, uint32(v))
		case uint64:
			ae.Uint64(n, v)
		case string:
			ae.String(n, v)
		case []byte:
			ae.Bytes(n, v)
		default:
			t.Fatalf("%T", v)
		}
	}
	b, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spell writes attributes down one by one.
func spell(t *testing.T, b []byte) []string {
	t.Helper()
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for ad.Next() {
		a := uapi.Attr(ad.Type())
		switch a.Type() {
		case uapi.TypeU32:
			all = append(all, fmt.Sprintf("%v %d", a, ad.Uint32()))
		case uapi.TypeU64:
			all = append(all, fmt.Sprintf("%v %d", a, ad.Uint64()))
		default:
			all = append(all, fmt.Sprintf("%v %q", a, ad.String()))
		}
	}
	if ad.Err() != nil {
		t.Fatal(ad.Err())
	}
	return all
}

var rules = Rules{Missed: 5, PeriodMS: 2000, GateMS: 15000, FenceDelayMS: 3000}

var join = Cluster{
	Name: "web", ThisNode: 1, Rules: rules,
	Nodes: []Node{
		{Number: 1, Name: "web1", Steps: []Step{{"watchdog", 90000, nil}}},
		{Number: 2, Name: "web2", Steps: []Step{{"impi", 20000, []byte("addr=10.0.0.2\n")}, {"manual", 1, nil}}},
	},
}

func TestCommandsAreSentAsTheProtocolHasThem(t *testing.T) {
	device, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	tests := []struct {
		cmd  uapi.Cmd
		send func(context.Context, *Client) error
		want []string
	}{
		{uapi.CmdNodeAdd, func(ctx context.Context, c *Client) error { return c.Join(ctx, join) }, []string{
			`cluster "web"`, "node 2", `method "impi"`, "timeout ms 20000", `params "addr=10.0.0.2\n"`,
			`method "manual"`, "timeout ms 1", `params ""`,
		}},
		{uapi.CmdLeave, func(ctx context.Context, c *Client) error { return c.Leave(ctx, "web") }, []string{`cluster "web"`}},
		{
			uapi.CmdFence, func(ctx context.Context, c *Client) error { return c.Fence(ctx, "web", 2, 1<<40, "root: stuck") },
			[]string{`cluster "web"`, "node 2", "incarnation 1099511627776", `reason "root: stuck"`},
		},
		{
			uapi.CmdFenced, func(ctx context.Context, c *Client) error {
				r := Request{Cluster: "web", Node: 2, Incarnation: 7, ID: 9, Attempt: 3}
				return c.Confirm(ctx, r, "root: pulled the plug")
			},
			[]string{
				`cluster "web"`, "node 2", "incarnation 7", "request 9", "attempt 3", "errno 0",
				`errmsg "root: pulled the plug"`,
			},
		},
		{
			uapi.CmdRegionAdd, func(ctx context.Context, c *Client) error {
				return c.RegionAdd(ctx, Region{Cluster: "web", UUID: "A0", StartBlock: 5, BlockBytes: 512, Blocks: 255, Nodes: 2, Rules: rules}, device)
			},
			[]string{
				`cluster "web"`, `region "A0"`, fmt.Sprint("fd ", device.Fd()), "start block 5", "block bytes 512", "blocks 255",
				"nodes 2", "missed 5", "period ms 2000", "gate ms 15000", "fence delay ms 3000",
			},
		},
		{uapi.CmdRegionDel, func(ctx context.Context, c *Client) error { return c.RegionDel(ctx, "A0") }, []string{`region "A0"`}},
		{uapi.CmdMemalloc, func(ctx context.Context, c *Client) error { return c.Memalloc(ctx) }, nil},
	}
	for _, test := range tests {
		var got []string
		c := dialFake(t, genltest.CheckRequest(family.ID, uint8(test.cmd), netlink.Request|netlink.Acknowledge,
			func(req genetlink.Message, nreq netlink.Message) ([]genetlink.Message, error) {
				got = spell(t, req.Data)
				return nil, genltest.Error(0)
			}))
		if err := test.send(t.Context(), c); err != nil {
			t.Errorf("%v: %v", test.cmd, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.cmd, diff)
		}
	}
}

func record(t testing.TB) []any {
	t.Helper()
	return []any{
		uapi.AttrCluster, "web", uapi.AttrNode, 2, uapi.AttrIncarnation, uint64(0xfeed), uapi.AttrRequest, uint64(9),
		uapi.AttrAttempt, 1, uapi.AttrErrno, int(unix.ETIMEDOUT), uapi.AttrState, int(uapi.EventFailed),
		uapi.AttrMethod, "ipmi", uapi.AttrReason, "silent", uapi.AttrErrmsg, "no answer",
		uapi.AttrAt, times(map[uapi.Event]uint64{uapi.EventSilent: 1_000_000_000, uapi.EventStarted: 1_500_000_000, uapi.EventFailed: 2_000_000_000}),
	}
}

// times is AttrAt as the kernel makes it.
func times(at map[uapi.Event]uint64) []byte {
	var b []byte
	for event := uapi.EventUnspec; event <= uapi.EventGateExpired; event++ {
		b = host.AppendUint64(b, at[event])
	}
	return b
}

var recorded = Request{
	Cluster: "web", Node: 2, Incarnation: 0xfeed, ID: 9, Attempt: 1, State: uapi.EventFailed, Method: "ipmi",
	Errno: unix.ETIMEDOUT, Errmsg: "no answer", Reason: "silent",
	At: map[uapi.Event]time.Time{
		uapi.EventSilent: time.Unix(1, 0).UTC(), uapi.EventStarted: time.Unix(1, 5e8).UTC(), uapi.EventFailed: time.Unix(2, 0).UTC(),
	},
}

// unfenced is a node of which there is no request.
var unfenced = []any{
	uapi.AttrCluster, "web", uapi.AttrNode, 1, uapi.AttrRequest, uint64(0), uapi.AttrMethod, "", uapi.AttrAt, times(nil),
	uapi.AttrMethod, "watchdog", uapi.AttrTimeoutMS, 90000,
}

func TestDumpsAreReadAsTheKernelWritesThem(t *testing.T) {
	tests := []struct {
		cmd     uapi.Cmd
		replies [][]any
		ask     func(context.Context, *Client) (any, error)
		want    any
	}{
		{
			uapi.CmdNodeGet,
			[][]any{unfenced, append(record(t), uapi.AttrMethod, "ipmi", uapi.AttrTimeoutMS, 20, uapi.AttrMethod, "manual", uapi.AttrTimeoutMS, 30)},
			func(ctx context.Context, c *Client) (any, error) { return c.Nodes(ctx) },
			[]Node{
				{Cluster: "web", Number: 1, Steps: []Step{{"watchdog", 90000, nil}}},
				{Cluster: "web", Number: 2, Steps: []Step{{"ipmi", 20, nil}, {"manual", 30, nil}}, Last: &recorded},
			},
		},
		{
			uapi.CmdMethodGet,
			[][]any{{uapi.AttrMethod, "ipmi", uapi.AttrModule, "o2fence", uapi.AttrPortID, 4711}},
			func(ctx context.Context, c *Client) (any, error) { return c.Methods(ctx) },
			[]Method{{"ipmi", "o2fence", 4711}},
		},
		{
			uapi.CmdRegionGet,
			[][]any{{
				uapi.AttrMissed, 5, uapi.AttrPeriodMS, 2000, uapi.AttrGateMS, 15000, uapi.AttrFenceDelayMS, 3000,
				uapi.AttrBlockBytes, 512, uapi.AttrBlocks, 255, uapi.AttrNodes, 3, uapi.AttrCluster, "web", uapi.AttrRegion, "A0",
				uapi.AttrLive, 1, uapi.AttrSilent, 2, uapi.AttrLive, 15,
			}},
			func(ctx context.Context, c *Client) (any, error) { return c.Regions(ctx) },
			[]Region{{"web", "A0", 0, 512, 255, 3, rules, []uint32{1, 15}, []uint32{2}}},
		},
		{
			uapi.CmdRequestGet,
			[][]any{record(t)},
			func(ctx context.Context, c *Client) (any, error) { return c.Requests(ctx) },
			[]Request{recorded},
		},
		{
			uapi.CmdRequestGet,
			nil,
			func(ctx context.Context, c *Client) (any, error) { return c.Requests(ctx) },
			[]Request{},
		},
	}
	for _, test := range tests {
		c := dialFake(t, genltest.CheckRequest(family.ID, uint8(test.cmd), netlink.Request|netlink.Dump,
			func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
				var replies []genetlink.Message
				for _, r := range test.replies {
					replies = append(replies, genetlink.Message{Data: encode(t, r...)})
				}
				if replies == nil {
					return nil, io.EOF
				}
				return replies, nil
			}))
		got, err := test.ask(t.Context(), c)
		if err != nil {
			t.Errorf("%v: %v", test.cmd, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.cmd, diff)
		}
	}
}

func TestADumpThatCannotBeReadIsAnError(t *testing.T) {
	c := dialFake(t, func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
		return []genetlink.Message{{Data: encode(t, uapi.AttrPortID, uint64(1))}}, nil
	})
	if got, err := c.Methods(t.Context()); err == nil {
		t.Errorf("%v", got)
	}
}

func TestSecretsAreShownNeitherInJSONNorInText(t *testing.T) {
	text, err := json.Marshal(join)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{string(text), fmt.Sprintf("%v %+v", join, join)} {
		if strings.Contains(shown, "10.0.0.2") || strings.Contains(shown, "[97 100") {
			t.Error(shown)
		}
	}
}

// A silentKernel takes everything and never answers.
type silentKernel struct{ closed chan struct{} }

func (k silentKernel) Close() error                         { close(k.closed); return nil }
func (k silentKernel) Send(netlink.Message) error           { return nil }
func (k silentKernel) SendMessages([]netlink.Message) error { return nil }
func (k silentKernel) Receive() ([]netlink.Message, error)  { <-k.closed; return nil, os.ErrClosed }
func (k silentKernel) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		_, err := k.Receive()
		yield(netlink.Message{}, err)
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	c := &Client{conn: genetlink.NewConn(netlink.NewConn(silentKernel{make(chan struct{})}, 1)), family: family}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- c.Leave(ctx, "web") }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAModuleThatIsNotLoadedIsTold(t *testing.T) {
	c, err := Dial()
	if err == nil {
		c.Close()
		t.Skip("module o2fence is loaded")
	}
	if !errors.Is(err, ErrNotLoaded) {
		t.Error(err)
	}
}
