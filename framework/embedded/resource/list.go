package resource

import (
	"math"
	"slices"
	"sort"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// List is a set of resources; the order means nothing, but is kept where possible.
type List = []mesos.Resource

// fixed turns a scalar into thousandths. Values that are not finite or too large saturate.
func fixed(v float64) int64 {
	f := math.Round(v * 1000)
	switch {
	case math.IsNaN(f):
		return 0
	case f >= math.MaxInt64/4:
		return math.MaxInt64 / 4
	case f <= math.MinInt64/4:
		return math.MinInt64 / 4
	}
	return int64(f)
}

func float(f int64) float64 { return float64(f/1000) + float64(f%1000)/1000 }

func scalar(f int64) *mesos.Value_Scalar { return &mesos.Value_Scalar{Value: float(f)} }

// role is the role a resource of the old format is reserved for, "*" when unset.
func oldRole(r *mesos.Resource) string {
	if r.Role == nil || *r.Role == "" {
		return "*"
	}
	return *r.Role
}

func sameReservation(a, b *mesos.Resource_ReservationInfo) bool {
	return a.GetType() == b.GetType() && a.GetRole() == b.GetRole() &&
		(a.Principal == nil) == (b.Principal == nil) && a.GetPrincipal() == b.GetPrincipal() &&
		sameLabels(a.Labels, b.Labels)
}

func sameLabels(a, b *mesos.Labels) bool {
	x, y := a.GetLabels(), b.GetLabels()
	if len(x) != len(y) {
		return false
	}
	return slices.EqualFunc(x, y, sameLabel) || slices.EqualFunc(sortedLabels(x), sortedLabels(y), sameLabel)
}

func sameLabel(a, b mesos.Label) bool {
	return a.Key == b.Key && (a.Value == nil) == (b.Value == nil) && a.GetValue() == b.GetValue()
}

func sortedLabels(l []mesos.Label) []mesos.Label {
	l = slices.Clone(l)
	sort.Slice(l, func(i, j int) bool {
		if l[i].Key != l[j].Key {
			return l[i].Key < l[j].Key
		}
		return l[i].GetValue() < l[j].GetValue()
	})
	return l
}

// sameKind says whether two resources differ in nothing but their amount.
func sameKind(a, b *mesos.Resource) bool {
	if a.Name != b.Name || a.GetType() != b.GetType() ||
		(a.AllocationInfo == nil) != (b.AllocationInfo == nil) ||
		a.AllocationInfo.GetRole() != b.AllocationInfo.GetRole() ||
		(a.Revocable == nil) != (b.Revocable == nil) || (a.Shared == nil) != (b.Shared == nil) ||
		len(a.Reservations) != len(b.Reservations) || oldRole(a) != oldRole(b) {
		return false
	}
	if (a.Reservation == nil) != (b.Reservation == nil) ||
		(a.Reservation != nil && !sameReservation(a.Reservation, b.Reservation)) {
		return false
	}
	for i := range a.Reservations {
		if !sameReservation(&a.Reservations[i], &b.Reservations[i]) {
			return false
		}
	}
	if (a.ProviderID == nil) != (b.ProviderID == nil) || (a.ProviderID != nil && a.ProviderID.Value != b.ProviderID.Value) {
		return false
	}
	if (a.Disk == nil) != (b.Disk == nil) {
		return false
	}
	return a.Disk == nil || a.Disk.Equal(b.Disk)
}

// indivisible says whether a resource is one thing that cannot be split or merged: a persistent
// volume, or a disk that is mounted as a whole.
func indivisible(r *mesos.Resource) bool {
	if r.Disk == nil {
		return false
	}
	if r.Disk.Persistence != nil {
		return true
	}
	switch r.Disk.GetSource().GetType() {
	case mesos.Resource_DiskInfo_Source_MOUNT, mesos.Resource_DiskInfo_Source_BLOCK, mesos.Resource_DiskInfo_Source_RAW:
		return true
	}
	return false
}

// IsEmpty says whether a resource amounts to nothing.
func IsEmpty(r *mesos.Resource) bool {
	switch r.GetType() {
	case mesos.SCALAR:
		return fixed(r.GetScalar().GetValue()) <= 0
	case mesos.RANGES:
		return len(r.GetRanges().GetRange()) == 0
	case mesos.SET:
		return len(r.GetSet().GetItem()) == 0
	}
	return true
}

// Add returns a and b together.
func Add(a List, b ...mesos.Resource) List {
	out := slices.Clone(a)
	for i := range b {
		out = addOne(out, &b[i])
	}
	return out
}

func addOne(list List, r *mesos.Resource) List {
	if IsEmpty(r) {
		return list
	}
	if !indivisible(r) && r.Shared == nil {
		for i := range list {
			if sameKind(&list[i], r) {
				list[i] = plus(list[i], r)
				return list
			}
		}
	}
	if r.GetType() == mesos.RANGES {
		n := *r
		n.Ranges = &mesos.Value_Ranges{Range: normalRanges(r.GetRanges().GetRange())}
		return append(list, n)
	}
	return append(list, *r)
}

func plus(a mesos.Resource, b *mesos.Resource) mesos.Resource {
	switch a.GetType() {
	case mesos.SCALAR:
		a.Scalar = scalar(fixed(a.GetScalar().GetValue()) + fixed(b.GetScalar().GetValue()))
	case mesos.RANGES:
		a.Ranges = &mesos.Value_Ranges{Range: normalRanges(slices.Concat(a.GetRanges().GetRange(), b.GetRanges().GetRange()))}
	case mesos.SET:
		items := slices.Concat(a.GetSet().GetItem(), b.GetSet().GetItem())
		slices.Sort(items)
		a.Set = &mesos.Value_Set{Item: slices.Compact(items)}
	}
	return a
}

// Subtract returns a without b. What a does not have is not subtracted: use Contains first where that matters.
func Subtract(a List, b ...mesos.Resource) List {
	out := slices.Clone(a)
	for i := range b {
		out = subtractOne(out, &b[i])
	}
	return out
}

func subtractOne(list List, r *mesos.Resource) List {
	for i := range list {
		if !sameKind(&list[i], r) {
			continue
		}
		if indivisible(r) || r.Shared != nil {
			if !sameAmount(&list[i], r) {
				continue
			}
			return slices.Delete(list, i, i+1)
		}
		list[i] = minus(list[i], r)
		if IsEmpty(&list[i]) {
			list = slices.Delete(list, i, i+1)
		}
		return list
	}
	return list
}

func minus(a mesos.Resource, b *mesos.Resource) mesos.Resource {
	switch a.GetType() {
	case mesos.SCALAR:
		a.Scalar = scalar(fixed(a.GetScalar().GetValue()) - fixed(b.GetScalar().GetValue()))
	case mesos.RANGES:
		a.Ranges = &mesos.Value_Ranges{Range: subtractRanges(a.GetRanges().GetRange(), b.GetRanges().GetRange())}
	case mesos.SET:
		gone := b.GetSet().GetItem()
		items := slices.DeleteFunc(slices.Clone(a.GetSet().GetItem()), func(s string) bool { return slices.Contains(gone, s) })
		a.Set = &mesos.Value_Set{Item: items}
	}
	return a
}

func sameAmount(a, b *mesos.Resource) bool {
	switch a.GetType() {
	case mesos.SCALAR:
		return fixed(a.GetScalar().GetValue()) == fixed(b.GetScalar().GetValue())
	case mesos.RANGES:
		return slices.Equal(normalRanges(a.GetRanges().GetRange()), normalRanges(b.GetRanges().GetRange()))
	case mesos.SET:
		return covers(a, b) && covers(b, a)
	}
	return false
}

// covers says whether the amount of a is at least that of b; they are of the same kind.
func covers(a, b *mesos.Resource) bool {
	switch a.GetType() {
	case mesos.SCALAR:
		return fixed(a.GetScalar().GetValue()) >= fixed(b.GetScalar().GetValue())
	case mesos.RANGES:
		return len(subtractRanges(b.GetRanges().GetRange(), a.GetRanges().GetRange())) == 0
	case mesos.SET:
		for _, s := range b.GetSet().GetItem() {
			if !slices.Contains(a.GetSet().GetItem(), s) {
				return false
			}
		}
		return true
	}
	return false
}

// Contains says whether all of b is in a.
func Contains(a, b List) bool {
	if len(b) == 1 {
		return containsOne(a, &b[0])
	}
	left := slices.Clone(a)
	for i := range b {
		if IsEmpty(&b[i]) {
			continue
		}
		if !containsOne(left, &b[i]) {
			return false
		}
		if b[i].Shared == nil { // one shared volume serves any number of users
			left = subtractOne(left, &b[i])
		}
	}
	return true
}

func containsOne(list List, r *mesos.Resource) bool {
	for i := range list {
		if !sameKind(&list[i], r) {
			continue
		}
		if indivisible(r) || r.Shared != nil {
			if sameAmount(&list[i], r) {
				return true
			}
			continue
		}
		if covers(&list[i], r) {
			return true
		}
	}
	return IsEmpty(r)
}

// Equal says whether a and b hold the same.
func Equal(a, b List) bool { return Contains(a, b) && Contains(b, a) }

// normalRanges sorts and joins ranges; inverted ones are dropped.
func normalRanges(in []mesos.Value_Range) []mesos.Value_Range {
	rs := slices.DeleteFunc(slices.Clone(in), func(r mesos.Value_Range) bool { return r.Begin > r.End })
	sort.Slice(rs, func(i, j int) bool { return rs[i].Begin < rs[j].Begin })
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && (out[n-1].End == math.MaxUint64 || r.Begin <= out[n-1].End+1) {
			out[n-1].End = max(out[n-1].End, r.End)
			continue
		}
		out = append(out, r)
	}
	return out
}

func subtractRanges(a, b []mesos.Value_Range) []mesos.Value_Range {
	a, b = normalRanges(a), normalRanges(b)
	var out []mesos.Value_Range
	j := 0
	for _, r := range a {
		begin, spent := r.Begin, false
		for j < len(b) && b[j].End < r.Begin {
			j++
		}
		for k := j; k < len(b) && b[k].Begin <= r.End; k++ {
			if b[k].Begin > begin {
				out = append(out, mesos.Value_Range{Begin: begin, End: b[k].Begin - 1})
			}
			if b[k].End >= r.End {
				spent = true
				break
			}
			begin = max(begin, b[k].End+1)
		}
		if !spent {
			out = append(out, mesos.Value_Range{Begin: begin, End: r.End})
		}
	}
	return out
}

// Filter returns the resources for which keep is true.
func Filter(l List, keep func(*mesos.Resource) bool) List {
	var out List
	for i := range l {
		if keep(&l[i]) {
			out = append(out, l[i])
		}
	}
	return out
}

// Sum returns the amount of a scalar resource over all reservations.
func Sum(l List, name string) float64 {
	var t int64
	for i := range l {
		if l[i].Name == name && l[i].GetType() == mesos.SCALAR {
			t += fixed(l[i].GetScalar().GetValue())
		}
	}
	return float(t)
}

// Has says whether a resource of that name is in the list at all.
func Has(l List, name string) bool {
	return slices.ContainsFunc(l, func(r mesos.Resource) bool { return r.Name == name })
}
