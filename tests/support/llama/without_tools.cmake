# llama.cpp's library of command-line tools takes more of the compiler than all else; the server doesn't use it. Its switch is
# forced on in the cache by llama-cpp-python, so that only a variable, which goes before the cache, can turn it off.
set(LLAMA_BUILD_COMMON OFF)
