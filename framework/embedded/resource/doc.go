// Package resource is the arithmetic of Mesos resources: adding, subtracting and comparing
// lists of mesos.Resource, pushing and popping reservations, and printing them in the words
// Mesos uses in its messages.
//
// Lists are values: no function changes a list, or a resource in it, that was passed in; results
// may share structure with their arguments. That makes them safe to keep in offers, tasks and
// totals at once without copying. Scalars are fixed point with three decimals, as in Mesos.
//
// mesos-go has such functions too; they clone every resource by reflection, which an allocation
// cycle over a thousand agents cannot afford, and print differently from Mesos.
package resource
