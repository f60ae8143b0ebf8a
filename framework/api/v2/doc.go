// Package v2 is Marathon's REST API: its paths, parameters, shapes, status codes and texts. Where Holdfast departs from them it is because
// instances are numbered and keep their volumes; the places say so.
package v2
