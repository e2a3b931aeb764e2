package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// signer makes and checks what a browser keeps to prove who it is: a session's
// id and its signature. Whether that session still lasts, the database knows.
type signer []byte

func (key signer) sign(id string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id))
	return id + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// verify returns the session's id, or errForged.
func (key signer) verify(proof string) (string, error) {
	id, _, _ := strings.Cut(proof, ".")
	if id == "" || !hmac.Equal([]byte(key.sign(id)), []byte(proof)) {
		return "", errForged
	}
	return id, nil
}
