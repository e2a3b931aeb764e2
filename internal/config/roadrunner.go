package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// poolName is the worker pool that .rr.yaml describes.
const poolName = "centrifuge"

var rrName = regexp.MustCompile(`(?i)^(.*\.)?rr([.\-_].*)?\.ya?ml$`)

// isRoadRunner reports whether a file is in RoadRunner's dialect: by its name, or by
// its sections if none of them is Centrifugo's or ours.
func isRoadRunner(name string, raw *node, schema *field) bool {
	if rrName.MatchString(filepath.Base(name)) {
		return true
	}
	raw = lowerKeys(raw)
	if raw.find("server.command") == nil && raw.get("centrifuge") == nil && raw.find("rpc.listen") == nil {
		return false
	}
	for _, key := range raw.order {
		switch key {
		case "rpc", "centrifuge", "status", "metrics":
			continue
		}
		if schema.child(key) != nil || flatKeys[key] != "" {
			return false
		}
	}
	return true
}

// lowerKeys returns n with keys in lower case, as RoadRunner reads them. Names of
// environment variables stay.
func lowerKeys(n *node) *node {
	out := *n
	out.order, out.keys, out.list = nil, nil, nil
	for _, item := range n.list {
		out.list = append(out.list, lowerKeys(item))
	}
	if n.kind == objectNode {
		out.keys = make(map[string]*node, len(n.keys))
	}
	for _, key := range n.order {
		value := n.keys[key]
		if key = strings.ToLower(key); key != "env" {
			value = lowerKeys(value)
		}
		out.set(key, value)
	}
	return &out
}

// version judges what .rr.yaml says of its version. RoadRunner does not start without.
func (l *loader) version(raw *node, main bool) {
	const fix = `write version: "3"`
	switch v := raw.get("version"); {
	case v == nil && main:
		l.report(Warning, source{file: raw.file}, "version", "missing; RoadRunner itself would not start, volute does", fix)
	case v == nil:
	case v.kind != textNode:
		l.report(Warning, v.source, v.key, "must be a text; RoadRunner itself would not start, volute does", fix)
	case v.text != "3":
		l.report(Note, v.source, v.key, fmt.Sprintf("%q is read like \"3\"", v.text), "")
	}
}

// application translates the sections of .rr.yaml that have no place of their own.
// server and centrifuge.pool stay until all files are merged.
func (t *translator) application() {
	if server := t.raw.get("server"); server != nil {
		t.out.set("server", server)
	}
	if address := t.out.find("centrifuge.grpc_api_address"); address.scalar() {
		plain := *address
		plain.text = strings.TrimPrefix(address.text, "tcp://")
		t.out.put("centrifuge.grpc_api_address", &plain)
	}
	if section := t.out.get("centrifuge"); section != nil && section.kind == objectNode {
		// What these tell is told to nobody today.
		section.remove("version")
		section.remove("name")
		if tls := section.get("tls"); tls != nil && tls.kind == objectNode {
			tls = renameTLS(tls)
			if tls.get("enabled") == nil && len(tls.order) > 0 {
				tls.set("enabled", newScalar(boolNode, "true", tls.source))
			}
			section.set("tls", tls)
		}
	}
	if collect := t.out.find("metrics.collect"); collect != nil {
		t.out.get("metrics").remove("collect")
		t.report(Note, collect.source, collect.key, "the application's own metrics are not served by volute, ignored", "")
	}
	if grace := t.raw.find("endure.grace_period"); grace != nil && t.out.find("shutdown.timeout") == nil {
		t.out.put("shutdown.timeout", grace)
	}
	if logs := t.raw.get("logs"); logs != nil && logs.kind == objectNode {
		t.logs(logs)
	}
}

// logs translates RoadRunner's logs section: there is one log for both halves.
func (t *translator) logs(logs *node) {
	put := func(key, text string, from *node) {
		if path := "log." + key; text != "" && t.out.find(path) == nil {
			value := *from
			value.text = text
			t.out.put(path, &value)
		}
	}
	if level := logs.get("level"); level.scalar() {
		text := strings.ToLower(level.text)
		if text == "panic" || text == "dpanic" {
			text = "fatal"
		}
		put("level", text, level)
	}
	if encoding := logs.get("encoding"); encoding.scalar() {
		put("format", map[string]string{"json": "json", "console": "text"}[strings.ToLower(encoding.text)], encoding)
	}
	if mode := logs.get("mode"); mode.scalar() {
		switch strings.ToLower(mode.text) {
		case "production":
			put("format", "json", mode)
		case "off", "none":
			put("level", "none", mode)
		}
	}
	for _, path := range []string{"file_logger_options.log_output", "output", "err_output"} {
		output := logs.find(path)
		if output != nil && output.kind == listNode && len(output.list) > 0 {
			output = output.list[0]
		}
		if output.scalar() && output.text != "stderr" && output.text != "stdout" {
			put("file", output.text, output)
		}
	}
	for _, key := range logs.order {
		switch key {
		case "level", "encoding", "mode", "output", "err_output", "file_logger_options", "line_ending":
		case "channels":
			t.report(Note, logs.keys[key].source, logs.keys[key].key, "volute has one log, ignored", "use logs.level")
		default:
			t.report(Warning, logs.keys[key].source, logs.keys[key].key, "unknown key, ignored", "delete it")
		}
	}
}

// fold makes the worker pool "centrifuge" of the sections server and centrifuge.pool.
func (l *loader) fold() {
	server, section := l.tree.get("server"), l.tree.get("centrifuge")
	l.tree.remove("server")
	pool := section.get("pool")
	if section.get("pool") != nil {
		section.remove("pool")
	}
	if server == nil && pool == nil {
		return
	}
	if section == nil {
		l.report(Warning, server.source, "server", "nothing runs its command: there is no centrifuge section", "add centrifuge: {proxy_address: tcp://127.0.0.1:30000}, or write workers instead")
		return
	}
	worker := newObject(section.source)
	schema := l.schema.child("workers")
	for _, part := range []*node{server, pool} {
		switch {
		case part == nil || part.kind == nullNode:
		case part.kind != objectNode:
			l.report(Error, part.source, part.key, "expected a section, got "+part.kind.String(), "write its keys below it: command, …")
		default:
			part = part.clone()
			part.remove("relay_timeout") // of older versions
			if after := part.get("after_init"); after != nil {
				part.remove("after_init")
				l.report(Note, after.source, after.key, "not run by volute, ignored", "")
			}
			worker.merge(part, schema)
		}
	}
	worker.set("name", newScalar(textNode, poolName, worker.source))
	list := l.tree.get("workers")
	if list == nil || list.kind != listNode {
		list = &node{kind: listNode, source: worker.source}
		l.tree.set("workers", list)
	}
	for i, item := range list.list {
		if item.name() == poolName && item.kind == objectNode {
			worker.merge(item, schema) // written under workers: it counts
			list.list[i] = worker
			return
		}
	}
	list.list = append(list.list, worker)
}
