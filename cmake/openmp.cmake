# OpenMP is the thread pool of the core. Target: OpenMP::OpenMP_CXX.
find_package(OpenMP REQUIRED COMPONENTS CXX)
