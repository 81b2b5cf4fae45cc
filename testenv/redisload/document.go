package redisload

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

// Documents are JSON as shops keep it: orders with a customer and items, about 1000 bytes each. General compressors make a fifth
// to a quarter of them.
var Documents = Values{Key: "order", Size: 1000, Make: document}

var (
	first  = []string{"Ada", "Bruno", "Carla", "Dimitri", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kenji", "Lena", "Mira", "Noor", "Oskar", "Paula"}
	family = []string{"Almeida", "Berg", "Costa", "Dubois", "Eriksen", "Fischer", "Garcia", "Hansen", "Ivanov", "Jensen", "Kowalski", "Larsen", "Moreau", "Novak"}
	cities = []string{"Aarhus", "Bologna", "Cork", "Dresden", "Exeter", "Faro", "Gdansk", "Haarlem", "Izmir", "Jena", "Krakow", "Leuven"}
	kinds  = []string{"oak", "steel", "linen", "glass", "cotton", "copper", "wool", "cork"}
	things = []string{"chair", "lamp", "kettle", "curtain", "shelf", "blanket", "mirror", "bowl", "desk", "clock"}
	states = []string{"new", "paid", "packed", "shipped", "delivered", "returned"}
)

// document is an order, exactly size bytes long, of at least 300.
func document(id, size int) string {
	name, surname := one(first), one(family)
	b := fmt.Appendf(make([]byte, 0, size+200), `{"id":"ord-%08d","created":"2026-%02d-%02dT%02d:%02d:%02dZ","status":"%s","customer":{"id":%d,"name":"%s %s","email":"%s.%s@example.com","city":"%s"},"items":[`,
		id, 1+rand.IntN(12), 1+rand.IntN(28), rand.IntN(24), rand.IntN(60), rand.IntN(60), one(states), rand.IntN(1_000_000), name, surname, name, surname, one(cities))
	for items := 0; len(b) < size-140; items++ {
		if items > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"sku":"SKU-%06d","title":"%s %s","quantity":%d,"price":%d.%02d,"currency":"EUR"}`,
			rand.IntN(1_000_000), one(kinds), one(things), 1+rand.IntN(5), rand.IntN(400), rand.IntN(100))
	}
	b = append(b, `],"reference":"`...)
	for len(b) < size-2 {
		b = strconv.AppendUint(b, rand.Uint64(), 16)
	}
	return string(append(b[:size-2], `"}`...))
}

func one(of []string) string { return of[rand.IntN(len(of))] }
