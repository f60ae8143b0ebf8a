package csi

import (
	"context"
	"regexp"
	"slices"
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
	// maxLimit is the largest attach limit that is believed.
	maxLimit = 1 << 20
	// reconnect is how long a call waits for a socket that nobody answered at before.
	reconnect = 250 * time.Millisecond
)

var pluginName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)

// plugin is the connection to a plugin's socket. It comes back by itself when the plugin is started again.
type plugin struct {
	o       Options
	secrets *secrets

	turn chan struct{} // holds one token; who has it may touch what follows
	conn *grpc.ClientConn
	now  *session

	stale atomic.Bool // a connection broke: another process may answer next
}

// session is what a plugin has said of itself on one connection.
type session struct {
	conn       *grpc.ClientConn
	identity   spec.IdentityClient
	controller spec.ControllerClient
	node       spec.NodeClient

	name, version string
	constrained   bool // VOLUME_ACCESSIBILITY_CONSTRAINTS
	control       map[spec.ControllerServiceCapability_RPC_Type]bool
	nodal         map[spec.NodeServiceCapability_RPC_Type]bool
	nodeID        string
	attachLimit   int
	topology      map[string]string
}

func newPlugin(o Options, s *secrets) *plugin {
	p := &plugin{o: o, secrets: s, turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

func (p *plugin) close() error {
	<-p.turn
	defer func() { p.turn <- struct{}{} }()
	if p.conn == nil {
		return nil
	}
	err := p.conn.Close()
	p.conn, p.now = nil, nil
	return fault.Wrap(fault.Internal, err, "close the connection to %s", p.o.Name)
}

// session connects and asks the plugin who it is, once per connection. Every error is Unavailable: nothing was asked about any volume.
func (p *plugin) session(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.LookLimit)
	defer cancel()
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "csi plugin %s at %s", p.o.Name, p.o.Endpoint)
	}
	if err := p.connect(ctx); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "csi plugin %s at %s", p.o.Name, p.o.Endpoint)
	}
	if p.now != nil && !p.stale.Load() {
		return p.now, nil
	}
	p.stale.Store(false)
	s := &session{conn: p.conn, identity: spec.NewIdentityClient(p.conn), controller: spec.NewControllerClient(p.conn), node: spec.NewNodeClient(p.conn)}
	if err := s.introduce(ctx); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "csi plugin %s at %s", p.o.Name, p.o.Endpoint)
	}
	p.o.Log.Info("csi plugin", zap.String("driver", p.o.Name), zap.String("plugin", s.name), zap.String("version", clean(s.version)), zap.String("node", s.nodeID))
	p.now = s
	return s, nil
}

// connect returns when the connection stands. Waiting for that before every call tells "nobody was asked" from "the reply was lost".
func (p *plugin) connect(ctx context.Context) error {
	if p.conn == nil {
		conn, err := grpc.NewClient(p.o.Endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
			grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)), grpc.WithIdleTimeout(0),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}, MinConnectTimeout: 2 * time.Second}))
		if err != nil {
			return err
		}
		p.conn = conn
	}
	for failed := false; ; {
		state := p.conn.GetState()
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
			p.conn.ResetConnectBackoff()
			brief, cancel := context.WithTimeout(ctx, reconnect)
			p.conn.WaitForStateChange(brief, state)
			cancel()
			continue
		}
		p.conn.Connect()
		if !p.conn.WaitForStateChange(ctx, state) {
			return ctx.Err()
		}
	}
}

// introduce asks for everything that does not concern a volume.
func (s *session) introduce(ctx context.Context) error {
	info, err := s.identity.GetPluginInfo(ctx, &spec.GetPluginInfoRequest{})
	if err != nil {
		return replyError("GetPluginInfo", err, nil)
	}
	s.name, s.version = info.GetName(), info.GetVendorVersion()
	if !pluginName.MatchString(s.name) {
		return fault.New(fault.Unavailable, "GetPluginInfo: name %.80q is not a plugin's name", s.name)
	}
	ready, err := s.identity.Probe(ctx, &spec.ProbeRequest{})
	if err != nil {
		return replyError("Probe", err, nil)
	}
	if r := ready.GetReady(); r != nil && !r.GetValue() {
		return fault.New(fault.Unavailable, "Probe: the plugin is not ready yet")
	}
	caps, err := s.identity.GetPluginCapabilities(ctx, &spec.GetPluginCapabilitiesRequest{})
	if err != nil {
		return replyError("GetPluginCapabilities", err, nil)
	}
	hasController := false
	for _, c := range caps.GetCapabilities() {
		switch c.GetService().GetType() {
		case spec.PluginCapability_Service_CONTROLLER_SERVICE:
			hasController = true
		case spec.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS:
			s.constrained = true
		}
	}
	s.control = map[spec.ControllerServiceCapability_RPC_Type]bool{}
	if hasController {
		caps, err := s.controller.ControllerGetCapabilities(ctx, &spec.ControllerGetCapabilitiesRequest{})
		if err != nil {
			return replyError("ControllerGetCapabilities", err, nil)
		}
		for _, c := range caps.GetCapabilities() {
			s.control[c.GetRpc().GetType()] = true
		}
	}
	return s.introduceNode(ctx)
}

func (s *session) introduceNode(ctx context.Context) error {
	caps, err := s.node.NodeGetCapabilities(ctx, &spec.NodeGetCapabilitiesRequest{})
	if err != nil {
		return replyError("NodeGetCapabilities", err, nil)
	}
	s.nodal = map[spec.NodeServiceCapability_RPC_Type]bool{}
	for _, c := range caps.GetCapabilities() {
		s.nodal[c.GetRpc().GetType()] = true
	}
	info, err := s.node.NodeGetInfo(ctx, &spec.NodeGetInfoRequest{})
	if err != nil {
		return replyError("NodeGetInfo", err, nil)
	}
	if err := checkText("node id", info.GetNodeId(), 256); err != nil {
		return fault.Op(err, "NodeGetInfo")
	}
	if n := info.GetMaxVolumesPerNode(); n < 0 || n > maxLimit {
		return fault.New(fault.Unavailable, "NodeGetInfo: a limit of %d volumes", n)
	}
	s.nodeID, s.attachLimit = info.GetNodeId(), int(info.GetMaxVolumesPerNode())
	s.topology = info.GetAccessibleTopology().GetSegments()
	return checkContext("topology", s.topology)
}

// can tells whether the controller has a capability.
func (s *session) can(c ...spec.ControllerServiceCapability_RPC_Type) bool {
	return !slices.ContainsFunc(c, func(c spec.ControllerServiceCapability_RPC_Type) bool { return !s.control[c] })
}

// reaches tells whether a volume of that accessible topology can be used from this node: one of its topologies must agree with this node's.
func (s *session) reaches(accessible []map[string]string) bool {
	if !s.constrained || len(accessible) == 0 {
		return true
	}
	return slices.ContainsFunc(accessible, func(t map[string]string) bool {
		for k, v := range t {
			if s.topology[k] != v {
				return false
			}
		}
		return true
	})
}

// ask makes one call. limit bounds it beside ctx.
func ask[Req, Resp any](ctx context.Context, p *plugin, limit time.Duration, method string, req *Req,
	f func(context.Context, *Req, ...grpc.CallOption) (*Resp, error), withSecrets func(*Req, map[string]string)) (*Resp, error) {
	var known map[string]string
	if withSecrets != nil {
		var err error
		if known, err = p.secrets.read(); err != nil {
			return nil, fault.Op(err, "%s", method)
		}
		withSecrets(req, known)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := f(ctx, req)
	if err != nil {
		if status.Code(err) == codes.Unavailable {
			p.stale.Store(true)
		}
		return nil, replyError(method, err, known)
	}
	return resp, nil
}
