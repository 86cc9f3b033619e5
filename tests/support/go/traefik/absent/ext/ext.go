// Package ext holds Traefik's extension points, which are empty; its own module is published nowhere.
package ext

type HTTP struct{}

type Router struct{}
