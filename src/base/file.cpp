#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "fourfold/error.h"

namespace fourfold::base {

namespace {

// What one call of read or write is asked for: macOS refuses 2 GiB and more.
constexpr std::size_t max_transfer = std::size_t{1} << 30;

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void fail(const char* action, const std::filesystem::path& path, const std::string& why) {
  throw Error(std::string("cannot ") + action + " " + path.string() + ": " + why);
}

// A new file in `folder`, removed again unless it took its final name.
class TemporaryFile {
 public:
  // With `mode` less the umask. `target` is the name for messages.
  TemporaryFile(const std::filesystem::path& folder, ::mode_t mode, const std::filesystem::path& target)
      : target_(target) {
    // O_EXCL makes the name ours alone; the number only saves attempts. Names can be taken by what a killed
    // process left behind, or by one of the same id on another machine.
    static std::atomic<unsigned> next_number{0};
    for (int attempts = 1000; descriptor_ < 0; --attempts) {
      path_ =
          folder / (".fourfold-" + std::to_string(::getpid()) + "-" + std::to_string(next_number++) + ".tmp");
      descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
      if (descriptor_ >= 0 || (errno == EEXIST && attempts > 1)) continue;
      const std::string why = reason(errno);
      fail("write", target_, "no temporary file in " + folder.string() + ": " + why);
    }
  }

  ~TemporaryFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!renamed_) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void set_permissions(::mode_t mode) { check(::fchmod(descriptor_, mode)); }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ::ssize_t written = ::write(descriptor_, bytes.data(), std::min(bytes.size(), max_transfer));
      if (written < 0 && errno == EINTR) continue;
      check(written);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  // Puts all on the disk, then takes the name `path`.
  void finish(const std::filesystem::path& path) {
    // EINVAL: a file system that has nothing to synchronize.
    if (::fsync(descriptor_) != 0 && errno != EINVAL) fail("write", target_, reason(errno));
    check(::close(std::exchange(descriptor_, -1)));  // network file systems report a full disk only here
    check(::rename(path_.c_str(), path.c_str()));
    renamed_ = true;
  }

 private:
  template <class Result>
  void check(Result result) const {
    if (result < 0) fail("write", target_, reason(errno));
  }

  const std::filesystem::path& target_;
  std::filesystem::path path_;
  int descriptor_ = -1;
  bool renamed_ = false;
};

// Where a symbolic link to no file yet wants one; any other path as it is.
std::filesystem::path end_of_links(std::filesystem::path path) {
  constexpr int most_links = 40;  // as Linux follows
  std::error_code error;
  for (int i = 0; i < most_links && std::filesystem::is_symlink(path, error); ++i)
    path = path.parent_path() / std::filesystem::read_symlink(path, error);
  return path;
}

}  // namespace

InputFile::InputFile(const std::filesystem::path& path)
    : path_(path),
      descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {  // a pipe must not block open
  if (descriptor_ < 0) fail("read", path, reason(errno));
  struct ::stat status {};
  std::string trouble;
  if (::fstat(descriptor_, &status) != 0)
    trouble = reason(errno);
  else if (S_ISDIR(status.st_mode))
    trouble = reason(EISDIR);
  else if (!S_ISREG(status.st_mode))
    trouble = "Not a regular file";
  if (!trouble.empty()) {
    ::close(descriptor_);
    fail("read", path, trouble);
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(std::span<std::byte> into) {
  while (!into.empty()) {
    const ::ssize_t got = ::read(descriptor_, into.data(), std::min(into.size(), max_transfer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read", path_, reason(errno));
    if (got == 0) fail("read", path_, "it ends " + std::to_string(into.size()) + " bytes too early");
    into = into.subspan(static_cast<std::size_t>(got));
  }
}

void write_file_atomically(const std::filesystem::path& path,
                           std::span<const std::span<const std::byte>> parts) {
  struct ::stat former {};
  const bool exists = ::stat(path.c_str(), &former) == 0;
  if (!exists && errno != ENOENT) fail("write", path, reason(errno));
  std::filesystem::path target = exists ? path : end_of_links(path);
  if (exists) {
    if (S_ISDIR(former.st_mode)) fail("write", path, reason(EISDIR));
    if (!S_ISREG(former.st_mode)) fail("write", path, "Not a regular file");
    if (::access(path.c_str(), W_OK) != 0) fail("write", path, reason(errno));
    std::error_code error;
    target = std::filesystem::canonical(path, error);  // the file behind a symbolic link
    if (error) fail("write", path, error.message());
  }
  const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";

  const ::mode_t mode = exists ? former.st_mode & 0777 : 0666;
  TemporaryFile file(folder, mode, path);
  if (exists) file.set_permissions(mode);  // whatever the umask
  for (const std::span<const std::byte> part : parts) file.write(part);
  file.finish(target);

  // The new name as well should survive a power cut. Not every file system can promise that, and the file is
  // complete by now: no error.
  const int folder_descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_descriptor >= 0) {
    ::fsync(folder_descriptor);
    ::close(folder_descriptor);
  }
}

}  // namespace fourfold::base
