package main

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/internal/consulconn"
)

func TestConsulSettings(t *testing.T) {
	const cluster = "0a1b2c3d-0000-4000-8000-000000000001"
	core := (*framework.Framework)(nil) // not asked before it runs
	for _, c := range []struct {
		config consulConfig
		want   string // of the error; "" for none
	}{
		{consulConfig{resync: time.Minute}, ""},
		{consulConfig{resync: time.Minute, Config: consulconn.Config{Address: "http://127.0.0.1:8500"}}, ""},
		{consulConfig{resync: time.Minute, Config: consulconn.Config{TokenFile: "x"}}, "need --consul"},
		{consulConfig{resync: time.Millisecond}, "--consul-resync"},
		{consulConfig{resync: time.Minute, Config: consulconn.Config{Address: "consul://x"}}, "must be http"},
		{consulConfig{resync: time.Minute, Config: consulconn.Config{Address: "http://x:8500", TokenFile: "/does/not/exist"}}, "token file"},
	} {
		err := c.config.check()
		if err == nil {
			r, e := c.config.registrar(core, cluster, prometheus.NewRegistry(), zap.NewNop())
			if err = e; e == nil && (r != nil) != (c.config.Address != "") {
				t.Errorf("%+v: %v", c.config, r)
			}
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
}
