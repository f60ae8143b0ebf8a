package resource

import (
	"strconv"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// Format prints a list as Mesos does in its messages.
func Format(l List) string {
	if len(l) == 0 {
		return "{}"
	}
	parts := make([]string, len(l))
	for i := range l {
		parts[i] = FormatOne(&l[i])
	}
	return strings.Join(parts, "; ")
}

// FormatOne prints one resource as Mesos does.
func FormatOne(r *mesos.Resource) string {
	var b strings.Builder
	b.WriteString(r.Name)
	if r.AllocationInfo != nil {
		b.WriteString("(allocated: " + r.AllocationInfo.GetRole() + ")")
	}
	if len(r.Reservations) > 0 {
		b.WriteString("(reservations: [")
		for i := range r.Reservations {
			if i > 0 {
				b.WriteString(",")
			}
			formatReservation(&b, &r.Reservations[i])
		}
		b.WriteString("])")
	}
	if r.Disk != nil {
		formatDisk(&b, r.Disk)
	}
	if r.Revocable != nil {
		b.WriteString("{REV}")
	}
	if r.Shared != nil {
		b.WriteString("<SHARED>")
	}
	b.WriteString(":")
	formatValue(&b, r)
	return b.String()
}

func formatReservation(b *strings.Builder, i *mesos.Resource_ReservationInfo) {
	b.WriteString("(" + i.GetType().String() + "," + i.GetRole())
	if i.Principal != nil {
		b.WriteString("," + *i.Principal)
	}
	if i.Labels != nil {
		var labels []string
		for _, l := range i.Labels.GetLabels() {
			s := l.Key
			if l.Value != nil {
				s += ": " + *l.Value
			}
			labels = append(labels, s)
		}
		b.WriteString(",{" + strings.Join(labels, ", ") + "}")
	}
	b.WriteString(")")
}

func formatDisk(b *strings.Builder, d *mesos.Resource_DiskInfo) {
	b.WriteString("[")
	if s := d.GetSource(); s != nil {
		b.WriteString(s.GetType().String())
		if root := s.GetPath().GetRoot() + s.GetMount().GetRoot(); root != "" {
			b.WriteString(":" + root)
		} else if s.ID != nil || s.Profile != nil {
			b.WriteString("(" + s.GetVendor() + "," + s.GetID() + "," + s.GetProfile() + ")")
		}
	}
	if p := d.GetPersistence(); p != nil {
		if d.GetSource() != nil {
			b.WriteString(",")
		}
		b.WriteString(p.ID)
	}
	if v := d.GetVolume(); v != nil {
		b.WriteString(":")
		if v.HostPath != nil {
			b.WriteString(*v.HostPath + ":")
		}
		b.WriteString(v.ContainerPath)
	}
	b.WriteString("]")
}

func formatValue(b *strings.Builder, r *mesos.Resource) {
	switch r.GetType() {
	case mesos.SCALAR:
		b.WriteString(strconv.FormatFloat(r.GetScalar().GetValue(), 'f', -1, 64))
	case mesos.RANGES:
		b.WriteString(FormatRanges(r.GetRanges().GetRange()))
	case mesos.SET:
		b.WriteString("{" + strings.Join(r.GetSet().GetItem(), ", ") + "}")
	}
}

// FormatRanges prints ranges as `[1-3, 5-5]`.
func FormatRanges(rs []mesos.Value_Range) string {
	var b strings.Builder
	b.WriteString("[")
	for i, r := range rs {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.FormatUint(r.Begin, 10) + "-" + strconv.FormatUint(r.End, 10))
	}
	b.WriteString("]")
	return b.String()
}
