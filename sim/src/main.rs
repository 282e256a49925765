fn main() {} // placeholder
