package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/transparency-dev/merkle/compact"
)

const width = 256

// tilePath is that of https://c2sp.org/tlog-tiles, below tile/.
func tilePath(level string, number, hashes uint64) string {
	path := fmt.Sprintf("%03d", number%1000)
	for rest := number / 1000; rest > 0; rest /= 1000 {
		path = fmt.Sprintf("x%03d/%s", rest%1000, path)
	}
	if hashes < width {
		path = fmt.Sprintf("%s.p/%d", path, hashes)
	}
	return level + "/" + path
}

var errNotFound = errors.New("404, not there")

func fetched(url, token string) ([]byte, error) {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err == nil && answer.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s: %w", url, errNotFound)
	}
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", url, answer.StatusCode, data)
	}
	return data, err
}

// served verifies a log below prefix: checkpoint, every entry, and every hash of every tile of its size.
func served(prefix, token, vkey string, kept []byte, rule witnessRule) (checkpoint, error) {
	if vkey == "" {
		data, err := fetched(prefix+"/key", "")
		if err != nil {
			return checkpoint{}, err
		}
		vkey = string(data)
	}
	cosigned, err := fetched(prefix+"/witnessed", "") // before the checkpoint, which goes on from it
	if errors.Is(err, errNotFound) {
		cosigned, err = nil, nil
	}
	if err != nil {
		return checkpoint{}, err
	}
	signed, err := fetched(prefix+"/checkpoint", "")
	if err != nil {
		return checkpoint{}, err
	}
	now, err := opened(vkey, signed)
	if err != nil {
		return checkpoint{}, err
	}
	earlier, err := earlierThan(now, vkey, kept)
	if err != nil {
		return checkpoint{}, err
	}
	witnessed, err := rule.check(cosigned, vkey, now)
	if err != nil {
		return checkpoint{}, err
	}
	earlier = append(earlier, witnessed...)
	rows := map[uint64][]byte{} // hashes of each level of tiles, in order
	whole := newTree(earlier, func(id compact.NodeID, hash []byte) {
		if id.Level%8 == 0 {
			rows[uint64(id.Level/8)] = append(rows[uint64(id.Level/8)], hash...)
		}
	})
	for first := uint64(0); first < now.size; first += width {
		count := min(width, now.size-first)
		bundle, err := fetched(prefix+"/tile/"+tilePath("entries", first/width, count), token)
		if err != nil {
			return checkpoint{}, err
		}
		if err := whole.addBundle(bundle, count); err != nil {
			return checkpoint{}, fmt.Errorf("entries from %d on: %w", first, err)
		}
	}
	if err := whole.is(now.root, "the checkpoint"); err != nil {
		return checkpoint{}, err
	}
	return now, sameTiles(prefix, rows)
}

func (t *tree) addBundle(bundle []byte, count uint64) error {
	for ; count > 0; count-- {
		if len(bundle) < 2 {
			return fmt.Errorf("the bundle ends %d entries early", count)
		}
		length := int(binary.BigEndian.Uint16(bundle))
		if len(bundle) < 2+length {
			return fmt.Errorf("the bundle ends in the middle of an entry")
		}
		if err := t.add(bundle[2 : 2+length]); err != nil {
			return err
		}
		bundle = bundle[2+length:]
	}
	if len(bundle) > 0 {
		return fmt.Errorf("%d bytes behind the last entry", len(bundle))
	}
	return nil
}

func sameTiles(prefix string, rows map[uint64][]byte) error {
	for level, row := range rows {
		for number := uint64(0); number*width*32 < uint64(len(row)); number++ {
			hashes := row[number*width*32 : min((number+1)*width*32, uint64(len(row)))]
			path := tilePath(fmt.Sprint(level), number, uint64(len(hashes)/32))
			tile, err := fetched(prefix+"/tile/"+path, "")
			if err != nil {
				return err
			}
			if !bytes.Equal(tile, hashes) {
				return fmt.Errorf("tile/%s doesn't hold the hashes of its entries", path)
			}
		}
	}
	return nil
}
