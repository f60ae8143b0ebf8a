// Package csiwire speaks CSI v1 to a plugin: it connects to the plugin's unix socket, asks it once per connection who it is and what it can do,
// makes calls bounded in time, and takes a reply for what it proves and for no more.
package csiwire

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
)

const (
	maxReply = 4 << 20
	// reconnect is how long a call waits for a socket that nobody answered at before.
	reconnect = 250 * time.Millisecond
)

var pluginName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)

// Options of a connection. Name and Endpoint are needed.
type Options struct {
	Name     string // what the driver is called, for errors and logs
	Endpoint string // unix:///path of the plugin's socket
	// Controller is the socket of the controller service where that is another than Endpoint's.
	Controller string
	Secrets    string        // directory of Secrets, "" for none
	LookLimit  time.Duration // bounds the questions of a new connection together
	Log        *zap.Logger
}

// Plugin is the connection to a plugin's sockets. It comes back by itself when the plugin is started again. Its methods may be called concurrently.
type Plugin struct {
	o       Options
	secrets secrets

	turn    chan struct{} // holds one token; who has it may touch what follows
	node    *grpc.ClientConn
	control *grpc.ClientConn // node, where both services are on one socket
	now     *Session

	stale atomic.Bool // a connection broke: another process may answer next
}

// New prepares a connection. Nothing is connected before it is needed.
func New(o Options) *Plugin {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	p := &Plugin{o: o, secrets: secrets{dir: o.Secrets}, turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

// Close ends the connections.
func (p *Plugin) Close() error {
	<-p.turn
	defer func() { p.turn <- struct{}{} }()
	var errs []error
	if p.control != nil && p.control != p.node {
		errs = append(errs, p.control.Close())
	}
	if p.node != nil {
		errs = append(errs, p.node.Close())
	}
	p.node, p.control, p.now = nil, nil, nil
	return fault.Wrap(fault.Internal, errors.Join(errs...), "close the connection to %s", p.o.Name)
}

// Session connects and asks the plugin who it is, once per connection. Every error is Unavailable: nothing was asked about any volume.
func (p *Plugin) Session(ctx context.Context) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.LookLimit)
	defer cancel()
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "csi plugin %s at %s", p.o.Name, p.o.Endpoint)
	}
	if err := p.connect(ctx); err != nil {
		return nil, err
	}
	if p.now != nil && !p.stale.Load() {
		return p.now, nil
	}
	p.stale.Store(false)
	s := &Session{Identity: spec.NewIdentityClient(p.node), Controller: spec.NewControllerClient(p.control), Node: spec.NewNodeClient(p.node)}
	if err := s.introduce(ctx, p.control, p.node); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "csi plugin %s at %s", p.o.Name, p.o.Endpoint)
	}
	p.o.Log.Info("csi plugin", zap.String("driver", p.o.Name), zap.String("plugin", s.Name), zap.String("version", Clean(s.Version)), zap.String("node", s.NodeID),
		zap.Strings("can", s.words()))
	p.now = s
	return s, nil
}

// connect returns when the connections stand. Waiting for that before every call tells "nobody was asked" from "the reply was lost".
func (p *Plugin) connect(ctx context.Context) (err error) {
	if p.node == nil {
		if p.node, err = newConn(p.o.Endpoint); err != nil {
			return fault.Wrap(fault.Unavailable, err, "csi plugin %s at %s", p.o.Name, p.o.Endpoint)
		}
	}
	if p.control == nil && p.o.Controller == "" {
		p.control = p.node
	} else if p.control == nil {
		if p.control, err = newConn(p.o.Controller); err != nil {
			return fault.Wrap(fault.Unavailable, err, "csi plugin %s, its controller at %s", p.o.Name, p.o.Controller)
		}
	}
	if err := p.stand(ctx, p.node); err != nil {
		return fault.Wrap(fault.Unavailable, err, "csi plugin %s at %s", p.o.Name, p.o.Endpoint)
	}
	if p.control != p.node {
		if err := p.stand(ctx, p.control); err != nil {
			return fault.Wrap(fault.Unavailable, err, "csi plugin %s, its controller at %s", p.o.Name, p.o.Controller)
		}
	}
	return nil
}

func newConn(endpoint string) (*grpc.ClientConn, error) {
	return grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)), grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}, MinConnectTimeout: 2 * time.Second}))
}

// stand waits until one connection stands.
func (p *Plugin) stand(ctx context.Context, conn *grpc.ClientConn) error {
	for failed := false; ; {
		state := conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		p.now = nil // another process may answer next
		if state == connectivity.TransientFailure {
			if failed {
				return fault.New(fault.Unavailable, "no connection")
			}
			// One more attempt right now: the plugin may have been started again since. A failed connection stays "failed" until it stands.
			failed = true
			conn.ResetConnectBackoff()
			brief, cancel := context.WithTimeout(ctx, reconnect)
			conn.WaitForStateChange(brief, state)
			cancel()
			continue
		}
		conn.Connect()
		if !conn.WaitForStateChange(ctx, state) {
			return ctx.Err()
		}
	}
}

// Ask makes one call. limit bounds it beside ctx. set, where the call takes secrets, puts those of the stage into the request.
func Ask[Req, Resp any](ctx context.Context, p *Plugin, limit time.Duration, method string, req *Req,
	f func(context.Context, *Req, ...grpc.CallOption) (*Resp, error), stage Stage, set func(*Req, map[string]string)) (*Resp, error) {
	var known map[string]string
	if set != nil {
		var err error
		if known, err = p.secrets.read(stage); err != nil {
			return nil, fault.Op(err, "%s", method)
		}
		set(req, known)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := f(ctx, req)
	if err != nil {
		if status.Code(err) == codes.Unavailable {
			p.stale.Store(true)
		}
		return nil, ReplyError(method, err, known)
	}
	return resp, nil
}

// CheckEndpoint refuses what is not unix:///path.
func CheckEndpoint(endpoint string) (socket string, err error) {
	socket, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok {
		return "", fault.New(fault.Invalid, "endpoint %q is not unix:///path", endpoint)
	}
	return socket, nil
}
