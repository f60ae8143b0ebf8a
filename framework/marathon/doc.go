// Package marathon reads the app definitions of Marathon, whole. Its parts are packages of their own: document is JSON that comes from
// anybody, definition the shape of an app, rule what must be true of one. Here they are put in order, with the migration of older forms, the
// defaults, updates, and the conversion for the scheduler. It does no I/O.
//
// An app goes through the stages that Marathon's does, and each stage reports all of its own errors together:
//
//	document.Parse -> definition.Decode -> rules of the old forms -> migrate -> rule.Given -> defaults -> rule.Whole
//
// Read does all of that for a whole app, ReadUpdate and Update.Apply for one whose fields replace those of another.
// Unsupported then names what this version cannot run, and Spec converts to what the scheduler works on.
// Holdfast's own additions: more than one instance with external volumes, `{ordinal}` in volume names, sizes with a unit, `unprotected`.
package marathon
