// Package auth lets nobody in.
package auth

import "net/http"

type SecretProvider func(user, realm string) string

func CheckSecret(password, secret string) bool { return false }

func DigestAuthParams(authorization string) map[string]string { return nil }

type BasicAuth struct {
	Realm   string
	Secrets SecretProvider
}

func (a *BasicAuth) RequireAuth(w http.ResponseWriter, r *http.Request) { refuse(w) }

type DigestAuth struct{}

func NewDigestAuthenticator(realm string, secrets SecretProvider) *DigestAuth { return &DigestAuth{} }

func (a *DigestAuth) CheckAuth(r *http.Request) (string, *string) { return "", nil }

func (a *DigestAuth) RequireAuth(w http.ResponseWriter, r *http.Request) { refuse(w) }

func (a *DigestAuth) RequireAuthStale(w http.ResponseWriter, r *http.Request) { refuse(w) }

func refuse(w http.ResponseWriter) {
	http.Error(w, "this build checks no passwords", http.StatusUnauthorized)
}
