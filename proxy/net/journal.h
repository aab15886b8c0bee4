#pragma once
// Whether it is systemd's journal that reads what this process writes. Knows nothing of what that
// is.

namespace pgchaperone::net {

// As $JOURNAL_STREAM has it (systemd.exec(5)): device and inode of the journal's end, which are no
// longer the descriptor's once that was led elsewhere.
bool journal_reads(int descriptor);

}  // namespace pgchaperone::net
