// Sorts, throws and catches.
#include <algorithm>
#include <stdexcept>
#include <vector>

struct Row {
    unsigned key;
    __attribute__((noinline)) bool operator<(const Row &other) const { return key < other.key; }
};

__attribute__((noinline)) unsigned refuse(unsigned n) {
    if (n % 2) throw std::runtime_error("odd");
    return n;
}

__attribute__((noinline)) unsigned handle(std::vector<Row> &rows) {
    for (unsigned i = 0; i < rows.size(); i++) rows[i].key = (i * 7919) % 10007;
    std::sort(rows.begin(), rows.end());
    unsigned kept = 0;
    for (auto &row : rows) {
        try {
            kept += refuse(row.key);
        } catch (const std::exception &) {
            kept++;
        }
    }
    return kept;
}

int main() {
    std::vector<Row> rows(2000);
    volatile unsigned sink = 0;
    for (;;) sink = sink + handle(rows);
}
