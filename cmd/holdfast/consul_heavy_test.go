package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
)

// consulDNS asks Consul's DNS for the one port of a name, 0 for none.
func consulDNS(ctx context.Context, server *servertest.Consul, name string) int {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, server.DNS())
	}}
	_, list, err := r.LookupSRV(ctx, "", "", name+".service.consul.")
	if err != nil || len(list) != 1 {
		return 0
	}
	return int(list[0].Port)
}

// onNode gives what Consul says of the services of a host.
func onNode(t *testing.T, server *servertest.Consul, host string) string {
	t.Helper()
	body := getText(t, "http://"+server.Addr()+"/v1/catalog/service/counter")
	if !strings.Contains(body, "-"+host+`"`) {
		return ""
	}
	return body
}

func getText(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestHeavyConsulFollowsInstances runs a cluster with Consul, kills an agent, and wants the name of the instance to lead to its new place.
func TestHeavyConsulFollowsInstances(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	server := servertest.StartConsul(t, "")
	c := devtest.Start(t, "--consul", "http://"+server.Addr())
	submit(t, c, "counter")
	leads := func(i client.Instance, limit time.Duration) {
		t.Helper()
		began := time.Now()
		devtest.Await(t, i.ID+" is found by name", limit, func(ctx context.Context) (bool, string, error) {
			got := consulDNS(ctx, server, fmt.Sprintf("instance-%d.counter", i.Ordinal))
			return got == i.Ports[0], fmt.Sprintf("port %d, not %d", got, i.Ports[0]), nil
		})
		t.Logf("%s is found %v after it was seen to run", i.ID, time.Since(began))
	}
	list := c.Running("/counter", 3)
	for _, i := range list {
		leads(i, 10*time.Second)
	}
	for path, want := range map[string]string{"/v1/consul": `"state":"synced"`, "/metrics/prometheus": "holdfast_consul_services 3\n"} {
		if got := getText(t, c.URL+path); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%s", path, want, got)
		}
	}
	victim := list[0]
	count(t, victim, true)
	if _, err := c.Control.Agent(t.Context(), victim.Hostname, "kill", dev.Order{}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	devtest.Await(t, "the lost host's entries are gone", 30*time.Second, func(context.Context) (bool, string, error) {
		return onNode(t, server, victim.Hostname) == "", "", nil
	})
	t.Logf("entries of %s are gone %v after its end", victim.Hostname, time.Since(began))
	now := c.Relaunched(victim)
	leads(now, 10*time.Second)
	if got := count(t, now, false); got != "1" {
		t.Errorf("%s is at %s", now.ID, got)
	}
}
