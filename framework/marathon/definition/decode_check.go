package definition

import (
	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

func decodeHealthChecks(r *document.Reader) []HealthCheck {
	out := []HealthCheck{}
	given := r.Each("healthChecks", func(o *document.Reader) {
		h := HealthCheck{
			Protocol:               o.Enum("protocol", "HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_TCP", "MESOS_HTTP", "MESOS_HTTPS"),
			Path:                   o.Str("path"),
			Port:                   o.Int("port", 0, maxPort),
			PortIndex:              o.Int("portIndex", 0, maxInt),
			GracePeriodSeconds:     o.Int("gracePeriodSeconds", 0, maxInt),
			IntervalSeconds:        o.Int("intervalSeconds", 0, maxInt),
			TimeoutSeconds:         o.Int("timeoutSeconds", 0, maxInt),
			DelaySeconds:           o.Int("delaySeconds", 0, maxInt),
			MaxConsecutiveFailures: o.Int("maxConsecutiveFailures", 0, maxInt),
			IgnoreHTTP1xx:          o.Flag("ignoreHttp1xx"),
			IPProtocol:             o.Enum("ipProtocol", "IPv4", "IPv6"),
		}
		if o.Has("command") {
			c := o.Obj("command")
			c.Require("value")
			h.Command = Ptr(Or(c.StrLen("value", 1, noBounds), ""))
			c.Close()
		}
		out = append(out, h)
	})
	if !given {
		return nil
	}
	return out
}

func decodeCheck(r *document.Reader) *Check {
	c := &Check{IntervalSeconds: r.Int("intervalSeconds", 0, maxInt), TimeoutSeconds: r.Int("timeoutSeconds", 0, maxInt), DelaySeconds: r.Int("delaySeconds", 0, maxInt)}
	for _, kind := range []string{"http", "tcp", "exec"} {
		if !r.Has(kind) {
			continue
		}
		o := r.Obj(kind)
		c.Kind = kind
		switch kind {
		case "exec":
			o.Require("command")
			c.Command = decodeCheckCommand(o)
		case "http":
			c.Path, c.Scheme = o.Str("path"), o.Enum("scheme", "HTTP", "HTTPS")
			c.PortIndex, c.Port = o.Int("portIndex", 0, maxInt), o.Int("port", 0, maxPort)
		default:
			c.PortIndex, c.Port = o.Int("portIndex", 0, maxInt), o.Int("port", 0, maxPort)
		}
		o.Close()
	}
	r.Close()
	return c
}

// decodeCheckCommand reads {"command":{"shell":"…"}}; the plain string that some files have is taken as that.
func decodeCheckCommand(o *document.Reader) *string {
	v := o.Value("command")
	if v == nil || v.Kind == document.String {
		return o.Str("command")
	}
	c := o.Obj("command")
	c.Require("shell")
	s := c.StrLen("shell", 1, noBounds)
	c.Close()
	return s
}

func decodeReadinessChecks(r *document.Reader) []ReadinessCheck {
	out := []ReadinessCheck{}
	given := r.Each("readinessChecks", func(o *document.Reader) {
		out = append(out, ReadinessCheck{
			Name:                 o.StrLen("name", 1, noBounds),
			Protocol:             o.Enum("protocol", "HTTP", "HTTPS"),
			Path:                 o.Str("path"),
			PortName:             o.StrLike("portName", portName),
			IntervalSeconds:      o.Int("intervalSeconds", 0, maxInt),
			TimeoutSeconds:       o.Int("timeoutSeconds", 0, maxInt),
			ReadyCodes:           o.Ints("httpStatusCodesForReady", 100, 999),
			PreserveLastResponse: o.Flag("preserveLastResponse"),
		})
	})
	if !given {
		return nil
	}
	return out
}
