package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

type about struct {
	Format   string `json:"format"`
	Origin   string `json:"origin"`
	Size     uint64 `json:"size"`
	Complete bool   `json:"complete"`
	Entries  int    `json:"entries"`
	Blobs    bool   `json:"blobs"`
}

type proved struct {
	Index  uint64   `json:"index"`
	Hashes []string `json:"hashes"`
}

// Of an entry, what its blob and a deletion's receipt need.
type entry struct {
	Type    string `json:"type"`
	Model   string `json:"model"`
	Time    string `json:"time"`
	Blob    string `json:"blob"`
	Frame   *int64 `json:"frame"`
	Summary struct {
		Blobs  []string `json:"blobs"`
		Before string   `json:"before"`
	} `json:"summary"`
}

func members(path string) (map[string][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var stream io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		if stream, err = gzip.NewReader(stream); err != nil {
			return nil, err
		}
	}
	found := map[string][]byte{}
	for archive := tar.NewReader(stream); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if _, twice := found[header.Name]; twice {
			return nil, fmt.Errorf("the bundle has %s twice", header.Name)
		}
		if found[header.Name], err = io.ReadAll(archive); err != nil {
			return nil, err
		}
	}
}

// strict reads JSON whose objects have these keys, letter for letter (encoding/json is lax about case), and nothing behind.
func strict(data []byte, into any, keys ...string) error {
	var plain any
	if err := json.Unmarshal(data, &plain); err != nil {
		return err
	}
	objects, many := plain.([]any)
	if !many {
		objects = []any{plain}
	}
	for _, one := range objects {
		object, _ := one.(map[string]any)
		for key := range object {
			if len(keys) > 0 && !slices.Contains(keys, key) {
				return fmt.Errorf("unknown field %q", key)
			}
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("bytes behind the JSON")
	}
	return nil
}

// bundled verifies an exported bundle: all entries, or some with a proof each.
func bundled(path, vkey string, kept []byte, rule witnessRule) (checkpoint, error) {
	files, err := members(path)
	if err != nil {
		return checkpoint{}, err
	}
	var said about
	if err := strict(files["bundle.json"], &said, "format", "origin", "size", "complete", "entries", "blobs"); err != nil || said.Format != "governed-bundle-1" {
		return checkpoint{}, fmt.Errorf("no bundle of format governed-bundle-1 (%v)", err)
	}
	if vkey == "" {
		vkey = string(files["vkey"])
		if err := asWritten(vkey); err != nil {
			return checkpoint{}, err
		}
	}
	now, err := opened(vkey, files["checkpoint"])
	if err != nil {
		return checkpoint{}, err
	}
	earlier, err := earlierThan(now, vkey, kept)
	if err != nil {
		return checkpoint{}, err
	}
	witnessed, err := rule.check(files["witnessed"], vkey, now)
	if err != nil {
		return checkpoint{}, err
	}
	earlier = append(earlier, witnessed...)
	lines := bytes.Split(files["entries.jsonl"], []byte("\n"))
	if len(lines[len(lines)-1]) != 0 {
		return checkpoint{}, errors.New("entries.jsonl doesn't end with a newline")
	}
	lines = lines[:len(lines)-1]
	if said.Origin != now.origin || said.Size != now.size || said.Entries != len(lines) {
		return checkpoint{}, errors.New("bundle.json speaks of another checkpoint, or of other entries")
	}
	if said.Complete {
		err = allThere(lines, earlier, now)
	} else {
		err = eachProved(files, lines, earlier, now)
	}
	if err != nil {
		return checkpoint{}, err
	}
	return now, blobsThere(files, lines, said.Blobs)
}

func allThere(lines [][]byte, earlier []checkpoint, now checkpoint) error {
	if uint64(len(lines)) != now.size {
		return fmt.Errorf("%d of %d signed entries are there", len(lines), now.size)
	}
	whole := newTree(earlier, nil)
	for _, line := range lines {
		if err := whole.add(line); err != nil {
			return err
		}
	}
	return whole.is(now.root, "the checkpoint")
}

func eachProved(files map[string][]byte, lines [][]byte, earlier []checkpoint, now checkpoint) error {
	var proofs []proved
	if err := strict(files["proofs.json"], &proofs, "index", "hashes"); err != nil {
		return err
	}
	if len(proofs) != len(lines) {
		return fmt.Errorf("%d entries and %d proofs", len(lines), len(proofs))
	}
	for i, one := range proofs {
		if err := included(lines[i], one.Index, one.Hashes, now); err != nil {
			return fmt.Errorf("entry %d: %w", one.Index, err)
		}
	}
	consistency := map[string][]string{}
	if data, ok := files["consistency.json"]; ok {
		if err := strict(data, &consistency); err != nil {
			return err
		}
	}
	for _, old := range earlier {
		hashes, ok := consistency[strconv.FormatUint(old.size, 10)]
		if !ok && old.size > 0 {
			return fmt.Errorf("no proof that the log extends the checkpoint over %d entries", old.size)
		}
		if err := consistent(old, now, hashes); err != nil {
			return err
		}
	}
	return nil
}

func blobsThere(files map[string][]byte, lines [][]byte, carried bool) error {
	for name, data := range files {
		digest, isBlob := strings.CutPrefix(name, "blobs/")
		if found := sha256.Sum256(data); isBlob && carried && hex.EncodeToString(found[:]) != digest {
			return fmt.Errorf("blob %s has SHA-256 %x", digest, found)
		}
	}
	entries := make([]entry, len(lines))
	covered := map[string]entry{}
	for i, line := range lines {
		if err := json.Unmarshal(line, &entries[i]); err != nil {
			return fmt.Errorf("%q is no ledger entry: %w", line, err)
		}
		if entries[i].Type == "deletion" {
			for _, digest := range entries[i].Summary.Blobs {
				covered[digest] = entries[i]
			}
		}
	}
	payload := map[string]bool{"prediction": true, "explanation": true, "label": true, "deadLetter": true}
	for _, one := range entries {
		if _, there := files["blobs/"+one.Blob]; one.Blob == "" || there || !carried {
			continue
		}
		receipt, ok := covered[one.Blob]
		early := payload[one.Type] && one.Time >= receipt.Summary.Before
		if !ok || receipt.Model != one.Model || one.Frame == nil || early {
			return fmt.Errorf("blob %s is missing, and no receipt covers it", one.Blob)
		}
	}
	return nil
}
