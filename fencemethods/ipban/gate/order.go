// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"context"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
	"github.com/o2fence/o2fence/fencemethods/remote/server"
)

// Orders are what a server for this gate takes, from whoever has the key.
func (g *Gate) Orders(key fencemethods.Secret) []server.Node {
	var all []server.Node
	for _, n := range g.nodes {
		all = append(all, server.Node{Target: n.Target, Handler: n, Keys: []fencemethods.Secret{key}})
	}
	return all
}

// Order carries out an order from afar.
func (n *Node) Order(ctx context.Context, o server.Order) (server.Result, error) {
	switch o.Op {
	case message.Off:
		return server.Result{State: fencemethods.Off}, n.Off(ctx)
	case message.On:
		return server.Result{State: fencemethods.On}, n.On(ctx)
	case message.Check:
		return server.Result{}, n.Check(ctx)
	}
	state, err := n.Status(ctx)
	return server.Result{State: state}, err
}
