// Files: reading from front to back, and writing that either succeeds or changes nothing. POSIX.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace fourfold::base {

// A regular file, open for reading. Pipes and devices, whose size is not known before, are refused.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path);  // throws Error
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::uint64_t size() const { return size_; }  // as it was when the file was opened

  // Fills `into` with the next bytes. Throws Error where the file ends before that.
  void read(std::span<std::byte> into);

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::uint64_t size_ = 0;
};

// Makes `path` a file of `parts`, one after another. They are written to a temporary file in the same folder,
// which takes the name at the end: at all times, for other processes and after a crash too, `path` is the
// former file or the whole new one. Throws Error, with the former file in place and no temporary one left
// (unless the process was killed).
//
// A former file keeps its permissions, and stays where they forbid writing; a new one gets those of the
// umask. A symbolic link is followed, also where it points to no file yet. What is not a regular file, such
// as /dev/null, is never replaced.
void write_file_atomically(const std::filesystem::path& path,
                           std::span<const std::span<const std::byte>> parts);

}  // namespace fourfold::base
