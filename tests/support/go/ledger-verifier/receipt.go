package main

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/proof"
)

const receiptHead = "c2sp.org/tlog-proof@v1\n"

// received verifies a receipt, https://c2sp.org/tlog-proof with the entry as extra data.
func received(data []byte, vkey string, rule witnessRule) (checkpoint, error) {
	if vkey == "" {
		return checkpoint{}, errors.New("a receipt carries no key: give -vkey")
	}
	head, signed, found := strings.Cut(strings.TrimPrefix(string(data), receiptHead), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 {
		return checkpoint{}, errors.New("no receipt: entry, index, hashes, an empty line and a checkpoint")
	}
	extra, isExtra := strings.CutPrefix(lines[0], "extra ")
	number, isIndex := strings.CutPrefix(lines[1], "index ")
	entry, err := base64.StdEncoding.Strict().DecodeString(extra)
	if err != nil || !isExtra || !isIndex {
		return checkpoint{}, fmt.Errorf("the receipt has no entry or no index (%v)", err)
	}
	index, err := strconv.ParseUint(number, 10, 64)
	if err != nil || strconv.FormatUint(index, 10) != number {
		return checkpoint{}, fmt.Errorf("index %q is no decimal number", number)
	}
	var hashes [][]byte
	for _, line := range lines[2:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(hash) != sha256.Size {
			return checkpoint{}, fmt.Errorf("%q is no hash", line)
		}
		hashes = append(hashes, hash)
	}
	now, err := opened(vkey, []byte(signed))
	if err != nil {
		return checkpoint{}, err
	}
	if rule.quorum > 0 {
		if _, err := rule.check([]byte(signed), vkey, now); err != nil {
			return checkpoint{}, err
		}
	}
	return now, proof.VerifyInclusion(hasher, index, now.size, hasher.HashLeaf(entry), hashes, now.root)
}
