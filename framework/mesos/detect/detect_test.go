package detect

import (
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
)

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"zk://h/mesos":                                 "zk://h:2181/mesos",
		"zk://h1:2181,h2,10.0.0.1:99/mesos/":           "zk://h1:2181,h2:2181,10.0.0.1:99/mesos",
		"zk://[::1]:2182,[fe80::1]/a/b":                "zk://[::1]:2182,[fe80::1]:2181/a/b",
		"zk://user:geh@im/nis:x@h1:2181,h2:2181/mesos": "zk://h1:2181,h2:2181/mesos",
	} {
		a, err := parse(in)
		if err != nil || a.String() != want {
			t.Errorf("parse(%q) = %v, %v; want %s", in, a, err, want)
		}
		if strings.Contains(in, "geh") && (a.user != "user" || a.password != "geh@im/nis:x") {
			t.Errorf("parse(%q): user %q, password %q", in, a.user, a.password)
		}
	}
	for _, in := range []string{"", "zk://", "zk://h", "zk://h/", "zk:///mesos", "zk://h:0/m", "zk://h:x/m", "zk://h//m", "zk://h/m/../n", "zk://h,/m",
		"zk://geheim@h/m", "zk://:geheim@h/m", "http://h/m", "zk://u:geheim@h:1:2/m", "zk://u:geheim@h/a b", "zk://u:geheim@h"} {
		if a, err := parse(in); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("parse(%q) = %v, %v; want invalid, and no secret in it", in, a, err)
		}
	}
}

func TestLeading(t *testing.T) {
	for want, children := range map[string][]string{
		"":                      {"log_replicas", "json.info_", "json.info_x", "info_99999999999", "0000000001"},
		"json.info_0000000003":  {"json.info_0000000010", "log_replicas", "json.info_0000000003", "info_0000000004"},
		"info_0000000002":       {"json.info_0000000003", "info_0000000002"},
		"json.info_-2147483648": {"json.info_2147483647", "json.info_-2147483648"},
	} {
		if got := leading(children); got != want {
			t.Errorf("leading(%v) = %q, want %q", children, got, want)
		}
	}
}

func TestMasterInfo(t *testing.T) {
	l, err := parseInfo([]byte(`{"address":{"hostname":"m1.example","ip":"10.0.0.1","port":5050},"capabilities":[{"type":"AGENT_UPDATE"}],"hostname":"m1","id":"abc","ip":16777226,"pid":"master@10.0.0.9:5050","port":5050,"version":"1.11.0"}`))
	if err != nil || *l != (Leader{ID: "abc", Address: "10.0.0.1:5050", Hostname: "m1.example", Version: "1.11.0"}) {
		t.Errorf("%+v, %v", l, err)
	}
	l, err = parseInfo([]byte(`{"hostname":"bad host","id":"abc","ip":16777226,"pid":"master@[::1]:5050","port":5050}`))
	if err != nil || l.Address != "[::1]:5050" || l.Hostname != "" {
		t.Errorf("%+v, %v", l, err)
	}
	for _, bad := range []string{"", "null", "[]", `{}`, `{"address":{"ip":"evil/x","port":1}}`, `{"address":{"ip":"1.2.3.4","port":70000}}`, `{"pid":"master@h:1"}`, `{"id":"` + strings.Repeat("x", maxInfo) + `"}`} {
		if l, err := parseInfo([]byte(bad)); !fault.Is(err, fault.Invalid) {
			t.Errorf("parseInfo(%.40q) = %+v, %v", bad, l, err)
		}
	}
}

func FuzzMasterInfo(f *testing.F) {
	f.Add([]byte(`{"address":{"hostname":"m1","ip":"10.0.0.1","port":5050},"id":"abc","pid":"master@10.0.0.9:5050"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if l, err := parseInfo(data); err == nil && (l == nil || l.Address == "") {
			t.Errorf("no error, no address: %+v", l)
		}
	})
}
