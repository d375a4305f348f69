// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"encoding/xml"
	"fmt"
	"io"
)

// The metadata's elements, in the order of the schema (lib/metadata.rng of fence-agents).
type (
	xmlAgent struct {
		XMLName   xml.Name   `xml:"resource-agent"`
		Name      string     `xml:"name,attr"`
		ShortDesc string     `xml:"shortdesc,attr"`
		LongDesc  string     `xml:"longdesc"`
		VendorURL string     `xml:"vendor-url"`
		Params    []xmlParam `xml:"parameters>parameter"`
		Actions   []xmlNamed `xml:"actions>action"`
	}
	xmlParam struct {
		Name       string     `xml:"name,attr"`
		Unique     int        `xml:"unique,attr"`
		Required   int        `xml:"required,attr"`
		Deprecated string     `xml:"deprecated,attr,omitempty"`
		Obsoletes  string     `xml:"obsoletes,attr,omitempty"`
		GetOpt     xmlGetOpt  `xml:"getopt"`
		Content    xmlContent `xml:"content"`
		ShortDesc  xmlText    `xml:"shortdesc"`
	}
	xmlGetOpt struct {
		Mixed string `xml:"mixed,attr"`
	}
	xmlContent struct {
		Type    kind   `xml:"type,attr"`
		Default string `xml:"default,attr,omitempty"`
	}
	xmlText struct {
		Lang string `xml:"lang,attr"`
		Text string `xml:",chardata"`
	}
	xmlNamed struct {
		Name      string `xml:"name,attr"`
		Automatic string `xml:"automatic,attr,omitempty"`
	}
)

const longDesc = `Fences a node of an OCFS2 cluster through o2fence: asks the kernel module to fence the node by the
methods that /etc/ocfs2/fence.conf configures for it, and succeeds when the kernel has said that the node
is proven off or cut off from the disks. The device parameters and credentials are those of fence.conf;
none are given here. It has to run on a member of that cluster, with o2fence started, and cannot fence
the node it runs on.

reboot fences, and powers the node on again: by o2fence itself where fence.conf says "then = on", and
otherwise by this agent. off fences; with "then = on" the node comes back on by itself afterwards.`

// metadata prints the XML that Pacemaker reads when a device is registered.
func (a *Agent) metadata() error {
	doc := xmlAgent{
		Name: "fence_o2fence", ShortDesc: "Fence agent for o2fence, fencing for OCFS2",
		LongDesc: longDesc, VendorURL: "https://github.com/o2fence/o2fence",
	}
	for _, p := range params() {
		if !p.hidden {
			doc.Params = append(doc.Params, describe(p))
		}
	}
	for _, action := range actions() {
		named := xmlNamed{Name: action}
		if action == actionOn {
			named.Automatic = "0"
		}
		doc.Actions = append(doc.Actions, named)
	}
	text, err := xml.MarshalIndent(doc, "", "\t")
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	_, err = io.WriteString(a.Stdout, xml.Header+string(text)+"\n")
	return err
}

func describe(p param) xmlParam {
	x := xmlParam{
		Name: p.name, GetOpt: xmlGetOpt{getopt(p)},
		Content: xmlContent{Type: p.kind, Default: p.standard}, ShortDesc: xmlText{"en", p.help},
	}
	if p.required {
		x.Required = 1
	}
	if p.obsolete != "" {
		x.Deprecated = "1"
	}
	for _, old := range params() {
		if old.obsolete == p.name {
			x.Obsoletes = old.name
		}
	}
	return x
}

// getopt is a parameter's options as the metadata and the help show them. An obsolete one has those
// of its successor.
func getopt(p param) string {
	for _, successor := range params() {
		if p.obsolete == successor.name {
			p = successor
		}
	}
	text := "--" + p.option()
	if p.kind != kindBoolean {
		text += "=[" + p.name + "]"
	}
	if p.short != "" {
		text = "-" + p.short + ", " + text
	}
	return text
}
