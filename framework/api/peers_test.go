package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/api"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/peers"
	"github.com/holdfast-io/holdfast/internal/fault"
)

func putApp(t *testing.T, c *client.Client, body string) {
	t.Helper()
	if _, err := c.PutApp(t.Context(), json.RawMessage(body), client.PutOptions{CreateOnly: true}); err != nil {
		t.Fatal(err)
	}
}

func TestPeers(t *testing.T) {
	c := newCore()
	server := httptest.NewServer(api.New(c, api.Options{}))
	defer server.Close()
	cl := client.New(server.URL)
	putApp(t, cl, `{"id":"/db","cmd":"sleep 1","instances":3,"cpus":0.1,"mem":32,"primary":true,"portDefinitions":[{"name":"sql","port":0}]}`)
	p, err := cl.Peers(t.Context(), "/db", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if p.App != "/db" || len(p.Peers) != 3 || p.Primary == nil || p.Primary.Instance != "db.0" || p.Primary.Term == 0 || p.Term != p.Primary.Term || p.Why != "" || p.Retiring != nil {
		t.Fatalf("%+v", p)
	}
	for n, i := range p.Peers {
		if i.Ordinal != n || i.State != "running" || !i.Healthy || i.Primary != (n == 0) || len(i.Ports) != 1 || i.Ports[0].Name != "sql" || i.Ports[0].Port == 0 || i.Address == "" {
			t.Errorf("%d: %+v", n, i)
		}
	}
	again, err := cl.Peers(t.Context(), "/db", p.Index, time.Second)
	if err != nil || again.Index != p.Index {
		t.Errorf("nothing changed, and after a second it says %+v, %v", again, err)
	}
	req, _ := http.NewRequest(http.MethodGet, server.URL+"/v1/apps/db/peers", nil)
	req.Header.Set("Accept", "text/plain")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var id, address, port, state, health, part string
	if _, err := fmt.Fscan(resp.Body, &n, &id, &address, &port, &state, &health, &part); err != nil || id != "db.0" || part != "primary" || health != "healthy" {
		t.Errorf("text: %d %s %s %s %s %s %s: %v", n, id, address, port, state, health, part, err)
	}
	resp.Body.Close()
	for what, err := range map[string]error{
		"no such app":   second(cl.Peers(t.Context(), "/nothing", "", 0)),
		"nor to wait":   second(cl.Peers(t.Context(), "/nothing", "x", time.Second)),
		"another term":  second(cl.YieldPrimary(t.Context(), "/db", p.Primary.Task, p.Term+1)),
		"another task":  second(cl.YieldPrimary(t.Context(), "/db", p.Peers[1].Task, p.Term)),
		"no such app 2": second(cl.YieldPrimary(t.Context(), "/nothing", "x", 1)),
	} {
		if c := fault.ClassOf(err); err == nil || c != fault.NotFound && c != fault.Conflict {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := cl.YieldPrimary(t.Context(), "/db", p.Primary.Task, p.Term); err != nil {
		t.Fatal(err)
	}
	if p, err = cl.Peers(t.Context(), "/db", p.Index, time.Minute); err != nil || p.Primary == nil || p.Primary.Instance != "db.1" || p.Primary.Term != p.Term {
		t.Errorf("after it was given up: %+v, %v", p, err)
	}
	putApp(t, cl, `{"id":"/x/peers","cmd":"sleep 1","instances":1,"cpus":0.1,"mem":32}`)
	if a, err := cl.App(t.Context(), "/x/peers"); err != nil || a.ID != "/x/peers" {
		t.Errorf("an app called peers: %+v, %v", a, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestManyWaitForPeers lets thousands wait at one app, and wants all of them to be told of a change, and nothing left of them afterwards.
func TestManyWaitForPeers(t *testing.T) {
	c := newCore()
	server := httptest.NewServer(api.New(c, api.Options{}))
	defer server.Close()
	cl := client.New(server.URL)
	putApp(t, cl, `{"id":"/db","cmd":"sleep 1","instances":2,"cpus":0.1,"mem":32}`)
	board := peers.New(c)
	before := board.Look("/db").Peers.Index
	routines := runtime.NumGoroutine()
	const many = 10000
	var wg sync.WaitGroup
	var mu sync.Mutex
	told := map[string]int{}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for range many {
		wg.Go(func() {
			sheet := board.Wait(ctx, "/db", before)
			mu.Lock()
			defer mu.Unlock()
			told[sheet.Peers.Index]++
		})
	}
	if _, err := cl.Scale(t.Context(), "/db", 3, false); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	sum := 0
	for index, n := range told {
		if index == before {
			t.Errorf("%d were told nothing", n)
		}
		sum += n
	}
	if sum != many {
		t.Errorf("%d of %d came back", sum, many)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > routines+20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left of %d before", runtime.NumGoroutine(), routines)
		}
	}
	if strings.Contains(fmt.Sprint(told), before) {
		t.Error(told)
	}
}
