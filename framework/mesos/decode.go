package mesos

import (
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Decode turns one event of the master's stream into a scheduler event; nil for those that mean nothing to the
// scheduler (heartbeats, messages, failures of single executors). SUBSCRIBED and ERROR are the Client's own
// business and give nil. The error (fault.Invalid) is for bytes that are no event.
func Decode(frame []byte, now time.Time) (scheduler.Event, error) {
	e, err := decodeFrame(frame)
	if err != nil {
		return nil, err
	}
	return convert(e, now), nil
}

func decodeFrame(frame []byte) (e *msched.Event, err error) {
	// Generated code reads what came over a socket.
	defer func() {
		if p := recover(); p != nil {
			e, err = nil, fault.New(fault.Invalid, "event of %d bytes: %v", len(frame), p)
		}
	}()
	e = new(msched.Event)
	if err := e.Unmarshal(frame); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "event of %d bytes", len(frame))
	}
	return e, nil
}

func convert(e *msched.Event, now time.Time) scheduler.Event {
	switch e.Type {
	case msched.Event_OFFERS:
		if e.Offers == nil {
			return nil
		}
		out := make([]*state.Offer, 0, len(e.Offers.Offers))
		for i := range e.Offers.Offers {
			out = append(out, convertOffer(&e.Offers.Offers[i], now))
		}
		return scheduler.Offers{Offers: out}
	case msched.Event_INVERSE_OFFERS:
		return convertInverse(e.InverseOffers, now)
	case msched.Event_RESCIND_INVERSE_OFFER:
		if e.RescindInverseOffer != nil {
			return scheduler.InverseRescinded{ID: e.RescindInverseOffer.InverseOfferID.Value}
		}
	case msched.Event_RESCIND:
		if e.Rescind != nil {
			return scheduler.Rescinded{Offer: e.Rescind.OfferID.Value}
		}
	case msched.Event_UPDATE:
		if e.Update != nil {
			return convertStatus(&e.Update.Status, now)
		}
	case msched.Event_UPDATE_OPERATION_STATUS:
		if e.UpdateOperationStatus != nil {
			return convertOperation(&e.UpdateOperationStatus.Status)
		}
	case msched.Event_FAILURE:
		if e.Failure != nil && e.Failure.AgentID != nil && e.Failure.ExecutorID == nil {
			return scheduler.AgentLost{Agent: state.AgentID(e.Failure.AgentID.Value)}
		}
	}
	return nil
}

func convertStatus(s *mesos.TaskStatus, now time.Time) scheduler.Status {
	out := scheduler.Status{
		Task:    state.TaskID(s.TaskID.Value),
		State:   s.GetState().String(),
		Message: limit(s.GetMessage(), 4096),
		At:      now,
		Healthy: s.Healthy,
	}
	if s.AgentID != nil {
		out.Agent = state.AgentID(s.AgentID.Value)
	}
	if s.Source != nil {
		out.Source = s.Source.String()
	}
	if s.Reason != nil {
		out.Reason = s.Reason.String()
	}
	if len(s.UUID) > 0 {
		out.UUID = append([]byte(nil), s.UUID...)
	}
	if t := s.GetTimestamp(); t > 0 && t < 1e11 {
		out.At = time.UnixMicro(int64(t * 1e6)).UTC()
	}
	if s.UnreachableTime != nil {
		out.UnreachableAt = time.Unix(0, s.UnreachableTime.Nanoseconds).UTC()
	}
	if s.ContainerStatus != nil {
		for i := range s.ContainerStatus.NetworkInfos {
			for _, ip := range s.ContainerStatus.NetworkInfos[i].IPAddresses {
				if out.ContainerIP == "" {
					out.ContainerIP = ip.GetIPAddress()
				}
			}
		}
	}
	return out
}

// convertOperation gives nil for an operation without an id, which cannot be ours.
func convertOperation(s *mesos.OperationStatus) scheduler.Event {
	if s.OperationID == nil {
		return nil
	}
	out := scheduler.OperationStatus{ID: s.OperationID.Value, State: s.State.String(), Message: limit(s.GetMessage(), 4096)}
	if s.AgentID != nil {
		out.Agent = state.AgentID(s.AgentID.Value)
	}
	if s.ResourceProviderID != nil {
		out.Provider = s.ResourceProviderID.Value
	}
	if s.UUID != nil && len(s.UUID.Value) > 0 {
		out.UUID = append([]byte(nil), s.UUID.Value...)
	}
	return out
}

// limit cuts a text from outside that goes into a record.
func limit(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

func convertOffer(o *mesos.Offer, now time.Time) *state.Offer {
	out := &state.Offer{
		ID:         o.ID.Value,
		Agent:      state.AgentID(o.AgentID.Value),
		Hostname:   o.Hostname,
		AgentURL:   agentURL(o.URL),
		Attributes: make(map[string]string, len(o.Attributes)),
		At:         now,
	}
	if o.AllocationInfo != nil {
		out.Role = o.AllocationInfo.GetRole()
	}
	out.Unavailable = window(o.Unavailability)
	if o.Domain != nil && o.Domain.FaultDomain != nil {
		out.Region, out.Zone = o.Domain.FaultDomain.Region.Name, o.Domain.FaultDomain.Zone.Name
	}
	for i := range o.Attributes {
		out.Attributes[o.Attributes[i].Name] = attributeText(&o.Attributes[i])
	}
	for i := range o.Resources {
		if r, ok := convertResource(&o.Resources[i]); ok {
			out.Resources = append(out.Resources, r)
		}
	}
	return out
}

// convertInverse takes the requests to leave an agent. One that names no agent asks for resources in general, which nobody does and we would not give.
func convertInverse(e *msched.Event_InverseOffers, now time.Time) scheduler.Event {
	if e == nil {
		return nil
	}
	var out []*state.InverseOffer
	for i := range e.InverseOffers {
		o := &e.InverseOffers[i]
		if o.AgentID == nil {
			continue
		}
		out = append(out, &state.InverseOffer{ID: o.OfferID.Value, Agent: state.AgentID(o.AgentID.Value), Window: *window(&o.Unavailability), At: now})
	}
	if len(out) == 0 {
		return nil
	}
	return scheduler.InverseOffers{Offers: out}
}

// window is when an agent is planned not to be available, nil when nothing is planned.
func window(u *mesos.Unavailability) *state.Window {
	if u == nil {
		return nil
	}
	w := &state.Window{Start: time.Unix(0, u.Start.Nanoseconds).UTC()}
	if u.Duration != nil && u.Duration.Nanoseconds > 0 {
		w.Duration = time.Duration(u.Duration.Nanoseconds)
	}
	return w
}

func agentURL(u *mesos.URL) string {
	if u == nil {
		return ""
	}
	scheme := u.Scheme
	if scheme != "https" {
		scheme = "http"
	}
	host := u.Address.GetIP()
	if host == "" || scheme == "https" { // a certificate names the host
		if h := u.Address.GetHostname(); h != "" {
			host = h
		}
	}
	if host == "" || u.Address.Port < 1 || u.Address.Port > 65535 {
		return ""
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(int(u.Address.Port)))
}

// convertResource leaves out what this version must not use as if it were plain: revocable resources and sets.
func convertResource(r *mesos.Resource) (state.Resource, bool) {
	if r.Revocable != nil {
		return state.Resource{}, false
	}
	out := state.Resource{Name: r.Name, Disk: convertDisk(r.Disk), Shared: r.Shared != nil}
	if r.ProviderID != nil {
		out.Provider = r.ProviderID.Value
	}
	switch {
	case r.Scalar != nil:
		out.Scalar = r.Scalar.Value
	case r.Ranges != nil:
		for _, rg := range r.Ranges.Range {
			if rg.Begin <= rg.End {
				out.Ranges = append(out.Ranges, state.Range{Begin: rg.Begin, End: rg.End})
			}
		}
	default:
		return state.Resource{}, false
	}
	if r.AllocationInfo != nil {
		out.AllocationRole = r.AllocationInfo.GetRole()
	}
	for i := range r.Reservations {
		v := &r.Reservations[i]
		res := state.Reservation{Role: v.GetRole(), Principal: v.GetPrincipal(), Dynamic: v.GetType() == mesos.Resource_ReservationInfo_DYNAMIC}
		if v.Labels != nil {
			res.Labels = make(map[string]string, len(v.Labels.Labels))
			for _, l := range v.Labels.Labels {
				res.Labels[l.Key] = l.GetValue()
			}
		}
		out.Reservations = append(out.Reservations, res)
	}
	raw, err := r.Marshal()
	if err != nil {
		return state.Resource{}, false
	}
	out.Raw = raw
	return out, true
}

func convertDisk(d *mesos.Resource_DiskInfo) *state.Disk {
	if d == nil || d.Persistence == nil && d.Source == nil && d.Volume == nil {
		return nil
	}
	out := &state.Disk{}
	if p := d.Persistence; p != nil {
		out.Persistence, out.Principal = p.ID, p.GetPrincipal()
	}
	if d.Volume != nil {
		out.ContainerPath = d.Volume.ContainerPath
	}
	if s := d.Source; s != nil {
		out.Source, out.ID, out.Profile, out.Vendor = s.Type.String(), s.GetID(), s.GetProfile(), s.GetVendor()
		if s.Path != nil {
			out.Root = s.Path.GetRoot()
		}
		if s.Mount != nil {
			out.Root = s.Mount.GetRoot()
		}
	}
	return out
}

// attributeText prints an attribute as Marathon's constraints see it: text as it is, scalars with at most three decimals,
// ranges `[1-2,5-6]`, sets `{a,b}` sorted.
func attributeText(a *mesos.Attribute) string {
	switch {
	case a.Text != nil:
		return a.Text.Value
	case a.Scalar != nil:
		return scalarText(a.Scalar.Value)
	case a.Ranges != nil:
		parts := make([]string, 0, len(a.Ranges.Range))
		for _, r := range a.Ranges.Range {
			parts = append(parts, fmt.Sprintf("%d-%d", r.Begin, r.End))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case a.Set != nil:
		items := append([]string(nil), a.Set.Item...)
		sort.Strings(items)
		return "{" + strings.Join(items, ",") + "}"
	}
	return ""
}

func scalarText(v float64) string {
	s := strconv.FormatFloat(v, 'f', 3, 64)
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	if s == "-0" {
		return "0"
	}
	return s
}
