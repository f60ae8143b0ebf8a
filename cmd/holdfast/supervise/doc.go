// Package supervise keeps child processes running: it starts them so that they die with this process, restarts them when they end
// by themselves, stops them in good order, and finds again what a killed predecessor has left, by a mark in its environment.
package supervise
