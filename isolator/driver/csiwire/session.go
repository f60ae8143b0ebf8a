package csiwire

import (
	"context"
	"slices"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// maxLimit is the largest attach limit that is believed.
const maxLimit = 1 << 20

// Session is what a plugin has said of itself on one connection. It is not changed after it was made.
type Session struct {
	Identity   spec.IdentityClient
	Controller spec.ControllerClient
	Node       spec.NodeClient

	Name, Version string
	Constrained   bool // VOLUME_ACCESSIBILITY_CONSTRAINTS: where a volume can be reached is a matter of topology
	HasController bool
	HasNode       bool
	Online        bool // volumes may be expanded while they are published
	Offline       bool // they may be while they are not; a plugin that says neither is tried
	NodeID        string
	AttachLimit   int
	Topology      map[string]string

	control map[spec.ControllerServiceCapability_RPC_Type]bool
	nodal   map[spec.NodeServiceCapability_RPC_Type]bool
}

// introduce asks for everything that does not concern a volume.
func (s *Session) introduce(ctx context.Context, control, node *grpc.ClientConn) error {
	info, err := s.Identity.GetPluginInfo(ctx, &spec.GetPluginInfoRequest{})
	if err != nil {
		return ReplyError("GetPluginInfo", err, nil)
	}
	s.Name, s.Version = info.GetName(), info.GetVendorVersion()
	if !pluginName.MatchString(s.Name) {
		return fault.New(fault.Unavailable, "GetPluginInfo: name %.80q is not a plugin's name", s.Name)
	}
	if err := probe(ctx, s.Identity); err != nil {
		return err
	}
	identity := s.Identity
	if control != node { // the controller's own process says whether there is a controller
		identity = spec.NewIdentityClient(control)
		if err := probe(ctx, identity); err != nil {
			return fault.Op(err, "controller")
		}
	}
	caps, err := identity.GetPluginCapabilities(ctx, &spec.GetPluginCapabilitiesRequest{})
	if err != nil {
		return ReplyError("GetPluginCapabilities", err, nil)
	}
	for _, c := range caps.GetCapabilities() {
		switch c.GetService().GetType() {
		case spec.PluginCapability_Service_CONTROLLER_SERVICE:
			s.HasController = true
		case spec.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS:
			s.Constrained = true
		}
		s.Offline = s.Offline || c.GetVolumeExpansion().GetType() == spec.PluginCapability_VolumeExpansion_OFFLINE
		s.Online = s.Online || c.GetVolumeExpansion().GetType() == spec.PluginCapability_VolumeExpansion_ONLINE
	}
	if err := s.introduceController(ctx); err != nil {
		return err
	}
	return s.introduceNode(ctx)
}

// probe tells whether the plugin is ready. One that does not say is.
func probe(ctx context.Context, identity spec.IdentityClient) error {
	r, err := identity.Probe(ctx, &spec.ProbeRequest{})
	if err != nil {
		return ReplyError("Probe", err, nil)
	}
	if ready := r.GetReady(); ready != nil && !ready.GetValue() {
		return fault.New(fault.Unavailable, "Probe: the plugin is not ready yet")
	}
	return nil
}

func (s *Session) introduceController(ctx context.Context) error {
	s.control = map[spec.ControllerServiceCapability_RPC_Type]bool{}
	if !s.HasController {
		return nil
	}
	caps, err := s.Controller.ControllerGetCapabilities(ctx, &spec.ControllerGetCapabilitiesRequest{})
	if err != nil {
		return ReplyError("ControllerGetCapabilities", err, nil)
	}
	for _, c := range caps.GetCapabilities() {
		s.control[c.GetRpc().GetType()] = true
	}
	return nil
}

// introduceNode asks the node service. Where a process is only the controller there is none, and it says Unimplemented.
func (s *Session) introduceNode(ctx context.Context) error {
	s.nodal = map[spec.NodeServiceCapability_RPC_Type]bool{}
	caps, err := s.Node.NodeGetCapabilities(ctx, &spec.NodeGetCapabilitiesRequest{})
	if status.Code(err) == codes.Unimplemented {
		return nil
	}
	if err != nil {
		return ReplyError("NodeGetCapabilities", err, nil)
	}
	for _, c := range caps.GetCapabilities() {
		s.nodal[c.GetRpc().GetType()] = true
	}
	s.HasNode = true
	info, err := s.Node.NodeGetInfo(ctx, &spec.NodeGetInfoRequest{})
	if status.Code(err) == codes.Unimplemented && !s.Constrained && !s.Can(spec.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME) {
		return nil // CSI asks for it only where there is something to attach or a topology
	}
	if err != nil {
		return ReplyError("NodeGetInfo", err, nil)
	}
	if err := CheckText("node id", info.GetNodeId(), 256); err != nil {
		return fault.Op(err, "NodeGetInfo")
	}
	if n := info.GetMaxVolumesPerNode(); n < 0 || n > maxLimit {
		return fault.New(fault.Unavailable, "NodeGetInfo: a limit of %d volumes", n)
	}
	s.NodeID, s.AttachLimit = info.GetNodeId(), int(info.GetMaxVolumesPerNode())
	s.Topology = info.GetAccessibleTopology().GetSegments()
	return CheckContext("topology", s.Topology)
}

// Can tells whether the controller has all these capabilities.
func (s *Session) Can(c ...spec.ControllerServiceCapability_RPC_Type) bool {
	return !slices.ContainsFunc(c, func(c spec.ControllerServiceCapability_RPC_Type) bool { return !s.control[c] })
}

// CanNode tells whether the node service has all these capabilities.
func (s *Session) CanNode(c ...spec.NodeServiceCapability_RPC_Type) bool {
	return !slices.ContainsFunc(c, func(c spec.NodeServiceCapability_RPC_Type) bool { return !s.nodal[c] })
}

// words names what the plugin can do, sorted.
func (s *Session) words() []string {
	var out []string
	for c := range s.control {
		out = append(out, strings.ToLower(c.String()))
	}
	for c := range s.nodal {
		out = append(out, "node-"+strings.ToLower(c.String()))
	}
	slices.Sort(out)
	return out
}

// SingleWriter tells whether the plugin knows the access modes that tell one writer on a node from several.
func (s *Session) SingleWriter() bool {
	return (!s.HasController || s.control[spec.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER]) &&
		(!s.HasNode || s.nodal[spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER])
}

// Reaches tells whether a volume of that accessible topology can be used from this node: one of its topologies must agree with this node's.
func (s *Session) Reaches(accessible []map[string]string) bool {
	if !s.Constrained || len(accessible) == 0 {
		return true
	}
	return slices.ContainsFunc(accessible, func(t map[string]string) bool {
		for k, v := range t {
			if s.Topology[k] != v {
				return false
			}
		}
		return true
	})
}

// ControllerGrows tells whether the controller expands volumes.
func (s *Session) ControllerGrows() bool {
	return s.Can(spec.ControllerServiceCapability_RPC_EXPAND_VOLUME)
}

// NodeGrows tells whether the node service does.
func (s *Session) NodeGrows() bool {
	return s.HasNode && s.CanNode(spec.NodeServiceCapability_RPC_EXPAND_VOLUME)
}

// Grows gives the way of Facts.Grows. Of a plugin that has a controller's expansion and does not say that it can do it online nothing is
// promised, but it is tried, and says itself when it cannot; one that only the node expands does it while the volume is there.
func (s *Session) Grows() string {
	switch {
	case s.ControllerGrows() && s.Online, !s.ControllerGrows() && s.NodeGrows():
		return driver.GrowsOnline
	case s.ControllerGrows():
		return driver.GrowsOffline
	}
	return ""
}
