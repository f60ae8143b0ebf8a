package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// endpoint is the agent's own HTTP server, on the loopback interface only.
type endpoint struct {
	listener net.Listener
	server   *http.Server
	done     chan struct{}
}

// listen takes the port, or the one that an earlier life of this agent had: a restarted agent stays where it was.
func (a *Agent) listen() (*endpoint, error) {
	if a.cfg.Listen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", cmp.Or(a.address, a.cfg.Listen))
	if err != nil && a.address != "" {
		l, err = net.Listen("tcp", a.cfg.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a.address = l.Addr().String()
	return &endpoint{listener: l, done: make(chan struct{})}, nil
}

func (e *endpoint) url() string {
	if e == nil {
		return ""
	}
	return "http://" + e.listener.Addr().String()
}

func (e *endpoint) serve(a *Agent) {
	if e == nil {
		return
	}
	e.server = &http.Server{Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	go func() {
		defer close(e.done)
		if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			a.log.Error("agent endpoint has ended: " + err.Error())
		}
	}()
}

func (e *endpoint) close() {
	if e == nil {
		return
	}
	e.listener.Close()
	if e.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if e.server.Shutdown(ctx) != nil {
		e.server.Close()
	}
	<-e.done
}
